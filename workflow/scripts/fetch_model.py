"""Bring a published model to its place: from the hub at its revision, or from a folder of the user's.

The files are linked, not copied: the hub's cache or the user's folder keeps the bytes.
"""

from pathlib import Path

from medmim.job import Job, UserError, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="index of the model's folder (written)")
    with Job(arguments, outputs=["model"], cached=False) as job:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

        hub, revision, path = job.cfg["hub"], job.cfg["revision"], job.cfg["path"]
        if path:
            folder = Path(path).resolve()
        else:
            try:
                folder = Path(snapshot_download(hub, revision=revision, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))
            except (RepositoryNotFoundError, RevisionNotFoundError, LocalEntryNotFoundError, HfHubHTTPError) as error:
                raise UserError(f"{hub} at {revision or 'its newest revision'} can't be fetched: {error}") from None
            job.extra["revision"] = folder.name
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no model: it has no config.json")
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            link = job.out["model"] / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
        job.done(f"{path or hub}{f' at {folder.name}' if hub else ''}")


if __name__ == "__main__":
    main()
