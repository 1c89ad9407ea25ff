"""What a run will need of the outside: credentials, agreements, bytes and disk, each with what to do about a gap."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.config.source_plugins import find_source
from medmim.download.errors import AccessDeniedError, TransientError
from medmim.download.ledger import Ledger
from medmim.download.source_folder import SourceDownload, make_completion_key
from medmim.download.transfer import RESERVED_DISK_BYTES
from medmim.sources.contract import load_part

TABLE_WIDTH = 150
"""Columns of the table where there is no terminal."""


@dataclass
class Requirement:
    """What a source or model needs. `download_bytes` and `disk_bytes` in bytes, None where nobody knows; `basis` says how
    they are known.
    """

    name: str
    licence: str = ""
    access: str = ""
    login_status: str = "none needed"
    download_bytes: int | None = 0
    disk_bytes: int | None = 0
    basis: str = ""
    folder: Path = Path()
    gaps: list[str] = field(default_factory=list)
    """What is missing, and what to do about it."""


def assess_phantom(name: str) -> Requirement:
    """A cohort drawn here."""
    return Requirement(name, "synthetic", "drawn here", folder=Path())


def assess_local(name: str, root: Path) -> Requirement:
    """A folder that the user has."""
    source = find_source(name)
    requirement = Requirement(name, source.licence, source.access, "not asked for: your folder", folder=root)
    try:
        if not root.is_dir() or not any(root.iterdir()):
            requirement.gaps.append(f"{root} holds nothing: put {source.title} there, or set origin: download")
    except OSError as error:
        requirement.gaps.append(f"{root} can't be read: {error.strerror}")
    return requirement


def assess_download(name: str, root: Path, limit: int | None, settings: Download) -> Requirement:
    """A source to be fetched. Asks its server a little, with the user's credentials."""
    source = find_source(name)
    requirement = Requirement(name, source.licence, source.access, folder=root)
    ledger = Ledger(root)
    if ledger.is_done(make_completion_key(limit)):
        requirement.login_status, requirement.basis = "not asked for: all is there", "all is there"
        return requirement
    download: SourceDownload = load_part(name, "download", SourceDownload)
    requirement.download_bytes, requirement.disk_bytes, requirement.basis = (
        source.published_bytes,
        source.published_bytes,
        f"published: {source.published}",
    )
    try:
        credentials_source = download.locate_credentials(settings)
        if credentials_source == "":
            requirement.login_status = "missing"
            requirement.gaps.append(f"no credentials found: {source.how_to_apply}")
            return requirement
        requirement.login_status = f"{credentials_source}: not tried" if credentials_source else "none needed"
        estimate = download.estimate_size(settings, limit)
        requirement.login_status = f"{credentials_source}: accepted" if credentials_source else "none needed"
        if estimate.download_bytes is not None:
            requirement.download_bytes, requirement.disk_bytes = estimate.download_bytes, estimate.disk_bytes
        requirement.basis = estimate.basis
    except AccessDeniedError as error:
        requirement.login_status = "refused" if requirement.login_status != "none needed" else requirement.login_status
        requirement.gaps.append(str(error))
    except TransientError as error:
        requirement.login_status += " (not reachable)"
        requirement.gaps.append(f"not reachable from here: {error}")
    except UserError as error:
        requirement.gaps.append(str(error))
    if requirement.download_bytes is not None and requirement.disk_bytes is not None:
        requirement.download_bytes, requirement.disk_bytes = (
            max(0, requirement.download_bytes - ledger.count_bytes()),
            max(0, requirement.disk_bytes - ledger.count_bytes()),
        )
    return requirement


def assess_model(name: str, hub: str, revision: str | None) -> Requirement:
    """A model of the hub."""
    from huggingface_hub import get_token
    from huggingface_hub.constants import HF_HUB_CACHE

    token = get_token()
    requirement = Requirement(
        name, "its own", "hub", "token: not tried" if token else "no token", None, None, folder=Path(HF_HUB_CACHE)
    )
    try:
        _ask_hub(requirement, hub, revision, token)
    except Exception as error:  # the hub's client lets through what its transport raises
        _note_hub_error(requirement, hub, revision, error)
    if requirement.gaps and "reachable" not in requirement.login_status:
        requirement.login_status = "token: refused" if token else "missing"
    return requirement


def _ask_hub(requirement: Requirement, hub: str, revision: str | None, token: str | None) -> None:
    """Fill in what the hub states of a model. Raises what its client does."""
    from huggingface_hub import HfApi

    model_info = HfApi(token=token).model_info(hub, revision=revision, files_metadata=True, timeout=15)
    weight_files = [f for f in model_info.siblings or [] if not f.rfilename.endswith((".bin", ".pth", ".gguf"))]
    requirement.download_bytes = requirement.disk_bytes = sum(f.size or 0 for f in weight_files)
    requirement.licence = str(getattr(model_info.card_data, "license", None) or "its own")
    requirement.access = "hub, gated" if model_info.gated else "hub"
    requirement.login_status, requirement.basis = "token: accepted" if token else "none needed", "as the hub states"
    if model_info.gated:
        HfApi(token=token).auth_check(hub)


def _note_hub_error(requirement: Requirement, hub: str, revision: str | None, error: Exception) -> None:
    """Note as a gap why the hub did not give a model, unless its cache has it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    terms = f"accept its terms at https://huggingface.co/{hub} and set HF_TOKEN"
    if isinstance(error, GatedRepoError):
        requirement.gaps.append(f"{hub} is gated: {terms}")
    elif isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        requirement.gaps.append(f"the hub has no {hub}{f' at {revision}' if revision else ''} that you may see: {terms}")
    elif isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        requirement.gaps.append(
            f"{hub} is not given to you: {terms}" if status in (401, 403) else f"{hub}: the hub says {status}"
        )
    elif isinstance(try_to_load_from_cache(hub, "config.json", revision=revision), str):
        requirement.download_bytes, requirement.disk_bytes, requirement.basis = 0, 0, "is in the hub's cache"
    else:
        requirement.login_status += " (not reachable)"
        requirement.gaps.append(f"{hub}: the hub is not reachable from here ({type(error).__name__})")


def _find_existing_parent(path: Path) -> Path:
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def check_disk_space(requirements: Iterable[Requirement]) -> list[str]:
    """Gaps of the disks that all needs together leave."""
    requirements_by_device: dict[int, list[Requirement]] = defaultdict(list)
    for requirement in requirements:
        if requirement.disk_bytes:
            requirements_by_device[_find_existing_parent(requirement.folder).stat().st_dev].append(requirement)
    gaps = []
    for group in requirements_by_device.values():
        total_bytes, free_bytes = (
            sum(n.disk_bytes or 0 for n in group),
            shutil.disk_usage(_find_existing_parent(group[0].folder)).free - RESERVED_DISK_BYTES,
        )
        if total_bytes > free_bytes:
            names = ", ".join(n.name for n in group)
            gaps.append(
                f"disk: {names} need {decimal(total_bytes)} and {decimal(max(free_bytes, 0))} are free: make room, or set "
                "their path"
            )
    return gaps


def print_requirements(
    requirements: list[Requirement], questions: Mapping[str, Mapping[str, int]], costs: list[str], gaps: list[str]
) -> None:
    """Print it for people; `costs` are lines about what is computed and paid for."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=TABLE_WIDTH)
    table = Table("", "licence", "access", "credentials", "to fetch", "disk", "how known", box=box.SIMPLE_HEAD)
    for requirement in requirements:
        download_text, disk_text = (
            "unknown" if size is None else decimal(size) if size else "nothing"
            for size in (requirement.download_bytes, requirement.disk_bytes)
        )
        table.add_row(
            requirement.name,
            requirement.licence,
            requirement.access,
            requirement.login_status,
            download_text,
            disk_text,
            requirement.basis,
        )
    console.print(table)
    known_bytes = sum(need.download_bytes or 0 for need in requirements)
    free_bytes = shutil.disk_usage(_find_existing_parent(Path())).free
    unknown_names = [need.name for need in requirements if need.download_bytes is None]
    console.print(
        f"To fetch: {decimal(known_bytes)}" + (f" and what nobody states of {', '.join(unknown_names)}" if unknown_names else "")
    )
    console.print(f"Free here: {decimal(free_bytes)}")
    for split, counts in questions.items():
        kind_counts = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
        console.print(f"Questions, {split}: at most {sum(counts.values()):,}" + (f" ({kind_counts})" if kind_counts else ""))
    for line in costs:
        console.print(line, markup=False)
    for gap in gaps:
        console.print(f"[red]Missing:[/] {gap}" if console.is_terminal else f"Missing: {gap}", markup=console.is_terminal)


def collect_requirements(cfg: Mapping[str, Any], computed: Iterable[Requirement] = ()) -> tuple[list[Requirement], list[str]]:
    """Needs of all sources and models of a run, as scripts/plan.py describes `cfg`, and the gaps in words.

    `computed`: needs of what the run itself computes, for whose files there must be room too.
    """
    settings = Download.model_validate(cfg["download"])
    requirements = []
    for name, source in cfg["sources"].items():
        root = Path(source["root"])
        if source["origin"] == "phantom":
            requirements.append(assess_phantom(name))
        elif source["origin"] == "local":
            requirements.append(assess_local(name, root))
        else:
            requirements.append(assess_download(name, root, source["limit"], settings))
    requirements += [assess_model(name, told["hub"], told["revision"]) for name, told in cfg["models"].items()]
    requirements += computed
    gaps = [f"{need.name}: {gap}" for need in requirements for gap in need.gaps]
    return requirements, gaps + check_disk_space(requirements)
