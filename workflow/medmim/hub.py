"""Files from the Hugging Face hub, or from a folder of the user's, in a place of ours: linked, not copied."""

from pathlib import Path
from typing import Any

from medmim.errors import UserError


def snapshot(repository: str, revision: str | None, **choice: Any) -> Path:
    """Folder of the hub's cache that holds a repository at a commit; `choice` goes to snapshot_download. Raises UserError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, **choice))
    except (RepositoryNotFoundError, RevisionNotFoundError, LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise UserError(f"{repository} at {revision or 'its newest revision'} can't be fetched: {error}") from None


def link(folder: Path, place: Path) -> int:
    """Make links in `place` to every file below `folder`; returns how many."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for file in files:
        target = place / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve())
    return len(files)
