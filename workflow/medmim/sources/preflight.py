"""What a run will need of the outside: credentials, agreements, bytes and disk, each with what to do about a gap."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download.errors import Passing, Refused
from medmim.download.ledger import Ledger
from medmim.download.source_folder import complete
from medmim.download.transfer import MARGIN
from medmim.sources.terms import OWNERS

WIDTH = 150
"""Columns of the table where there is no terminal."""


@dataclass
class Need:
    """What a source or model needs. `fetch` and `disk` in bytes, None where nobody knows; `how` says how they are known."""

    name: str
    licence: str = ""
    access: str = ""
    login: str = "none needed"
    fetch: int | None = 0
    disk: int | None = 0
    how: str = ""
    place: Path = Path()
    gaps: list[str] = field(default_factory=list)
    """What is missing, and what to do about it."""


def phantom(name: str) -> Need:
    """A cohort drawn here."""
    return Need(name, "synthetic", "drawn here", place=Path())


def local(name: str, root: Path) -> Need:
    """A folder that the user has."""
    owner = OWNERS[name]
    need = Need(name, owner.licence, owner.access, "not asked for: your folder", place=root)
    if not root.is_dir() or not any(root.iterdir()):
        need.gaps.append(f"{root} holds nothing: put {owner.name} there, or set origin: download")
    return need


def download(name: str, root: Path, limit: int | None, settings: Download) -> Need:
    """A source to be fetched. Asks its server a little, with the user's credentials."""
    owner = OWNERS[name]
    need = Need(name, owner.licence, owner.access, place=root)
    ledger = Ledger(root)
    if ledger.finished(complete(limit)):
        need.login, need.how = "not asked for: all is there", "all is there"
        return need
    module = import_module(f"medmim.sources.{name}.download")
    need.fetch, need.disk, need.how = owner.published_bytes, owner.published_bytes, f"published: {owner.published}"
    try:
        where = module.login(settings)
        if where == "":
            need.login = "missing"
            need.gaps.append(f"no credentials found: {owner.apply}")
            return need
        need.login = f"{where}: not tried" if where else "none needed"
        estimate = module.estimate(settings, limit)
        need.login = f"{where}: accepted" if where else "none needed"
        if estimate.bytes is not None:
            need.fetch, need.disk = estimate.bytes, estimate.disk
        need.how = estimate.how
    except Refused as error:
        need.login = "refused" if need.login != "none needed" else need.login
        need.gaps.append(str(error))
    except Passing as error:
        need.login += " (not reachable)"
        need.gaps.append(f"not reachable from here: {error}")
    except UserError as error:
        need.gaps.append(str(error))
    if need.fetch is not None and need.disk is not None:
        need.fetch, need.disk = max(0, need.fetch - ledger.bytes()), max(0, need.disk - ledger.bytes())
    return need


def model(name: str, hub: str, revision: str | None) -> Need:
    """A model of the hub."""
    from huggingface_hub import HfApi, get_token, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    token = get_token()
    need = Need(name, "its own", "hub", "token: not tried" if token else "no token", None, None, place=Path(HF_HUB_CACHE))
    terms = f"accept its terms at https://huggingface.co/{hub} and set HF_TOKEN"
    try:
        found = HfApi(token=token).model_info(hub, revision=revision, files_metadata=True, timeout=15)
        kept = [f for f in found.siblings or [] if not f.rfilename.endswith((".bin", ".pth", ".gguf"))]
        need.fetch = need.disk = sum(f.size or 0 for f in kept)
        need.licence = str(getattr(found.card_data, "license", None) or "its own")
        need.access = "hub, gated" if found.gated else "hub"
        need.login, need.how = "token: accepted" if token else "none needed", "as the hub states"
        if found.gated:
            HfApi(token=token).auth_check(hub)
    except GatedRepoError:
        need.gaps.append(f"{hub} is gated: {terms}")
    except (RepositoryNotFoundError, RevisionNotFoundError):
        need.gaps.append(f"the hub has no {hub}{f' at {revision}' if revision else ''} that you may see: {terms}")
    except HfHubHTTPError as error:
        status = error.response.status_code
        need.gaps.append(f"{hub} is not given to you: {terms}" if status in (401, 403) else f"{hub}: the hub says {status}")
    except Exception as error:  # the hub's client lets through what its transport raises
        if not isinstance(try_to_load_from_cache(hub, "config.json", revision=revision), str):
            need.login += " (not reachable)"
            need.gaps.append(f"{hub}: the hub is not reachable from here ({type(error).__name__})")
        else:
            need.fetch, need.disk, need.how = 0, 0, "is in the hub's cache"
    if need.gaps and "reachable" not in need.login:
        need.login = "token: refused" if token else "missing"
    return need


def _existing(place: Path) -> Path:
    return next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())


def disks(needs: Iterable[Need]) -> list[str]:
    """Gaps of the disks that all needs together leave."""
    wanted: dict[int, list[Need]] = defaultdict(list)
    for need in needs:
        if need.disk:
            wanted[_existing(need.place).stat().st_dev].append(need)
    gaps = []
    for group in wanted.values():
        total, free = sum(n.disk or 0 for n in group), shutil.disk_usage(_existing(group[0].place)).free - MARGIN
        if total > free:
            names = ", ".join(n.name for n in group)
            gaps.append(f"disk: {names} need {decimal(total)} and {decimal(max(free, 0))} are free: make room, or set their path")
    return gaps


def show(needs: list[Need], questions: Mapping[str, Mapping[str, int]], costs: list[str], gaps: list[str]) -> None:
    """Print it for people; `costs` are lines about what is computed and paid for."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    table = Table("", "licence", "access", "credentials", "to fetch", "disk", "how known", box=box.SIMPLE_HEAD)
    for need in needs:
        fetch, disk = ("unknown" if size is None else decimal(size) if size else "nothing" for size in (need.fetch, need.disk))
        table.add_row(need.name, need.licence, need.access, need.login, fetch, disk, need.how)
    console.print(table)
    known = sum(need.fetch or 0 for need in needs)
    free = shutil.disk_usage(_existing(Path())).free
    unknown = [need.name for need in needs if need.fetch is None]
    console.print(f"To fetch: {decimal(known)}" + (f" and what nobody states of {', '.join(unknown)}" if unknown else ""))
    console.print(f"Free here: {decimal(free)}")
    for split, counts in questions.items():
        told = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
        console.print(f"Questions, {split}: at most {sum(counts.values()):,}" + (f" ({told})" if told else ""))
    for line in costs:
        console.print(line, markup=False)
    for gap in gaps:
        console.print(f"[red]Missing:[/] {gap}" if console.is_terminal else f"Missing: {gap}", markup=console.is_terminal)


def look(cfg: Mapping[str, Any]) -> tuple[list[Need], list[str]]:
    """Needs of all sources and models of a run, as scripts/plan.py describes `cfg`, and the gaps in words."""
    settings = Download.model_validate(cfg["download"])
    needs = []
    for name, source in cfg["sources"].items():
        root = Path(source["root"])
        if source["origin"] == "phantom":
            needs.append(phantom(name))
        elif source["origin"] == "local":
            needs.append(local(name, root))
        else:
            needs.append(download(name, root, source["limit"], settings))
    needs += [model(name, told["hub"], told["revision"]) for name, told in cfg["models"].items()]
    gaps = [f"{need.name}: {gap}" for need in needs for gap in need.gaps]
    return needs, gaps + disks(needs)
