"""Files from the Hugging Face hub, or from a folder of the user's, in a place of ours: linked, not copied."""

import logging
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.common.errors import explain_library_errors

log = logging.getLogger("medmim")


def download_snapshot(repository: str, revision: str | None, **choice: Any) -> Path:
    """Folder of the hub's cache that holds a repository at a commit; `choice` goes to snapshot_download. Raises UserError."""
    from huggingface_hub import snapshot_download

    with explain_library_errors(f"{repository} at {revision or 'its newest revision'} can't be fetched"):
        return Path(snapshot_download(repository, revision=revision, **choice))


def link_files(folder: Path, place: Path) -> int:
    """Make links in `place` to every file below `folder`; returns how many."""
    paths = files.list_files(folder)
    for file in paths:
        target = place / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve())
    return len(paths)


def read_licences(folder: Path) -> frozenset[str]:
    """Names of the licences that the card of a repository's folder states, as the hub writes them; none where it states none."""
    import yaml
    from huggingface_hub.repocard import metadata_load

    card = folder / "README.md"
    try:
        card_metadata = (metadata_load(card) or {}) if card.is_file() else {}
    except (ValueError, yaml.YAMLError) as error:
        log.warning("%s: its header can't be read, nor the licence that it may state: %s", card, error)
        return frozenset()
    licence_field = card_metadata.get("license")
    licence_names = card_metadata.get("license_name") or licence_field if licence_field == "other" else licence_field
    return frozenset(str(name) for name in (licence_names if isinstance(licence_names, list) else [licence_names]) if name)
