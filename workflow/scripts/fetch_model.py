"""Bring a published model to its place: from the hub at its revision, or from a folder of the user's.

The files are linked, not copied: the hub's cache or the user's folder keeps the bytes. They are under the licence that the
model's card states, else what medmim.reporting.model_card.licences knows of it.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, parser
from medmim.tables.data_policy import UNSTATED, Rules


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="index of the model's folder (written)")
    with Job(arguments, outputs=["model"], cached=False) as job:
        from medmim.common import huggingface_hub
        from medmim.reporting.model_card.licences import BASES

        repository, revision, path = job.cfg["hub"], job.cfg["revision"], job.cfg["path"]
        if path:
            folder = Path(path).resolve()
        else:
            folder = huggingface_hub.snapshot(repository, revision, ignore_patterns=["*.bin", "*.pth", "*.gguf"])
            job.extra["revision"] = folder.name
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no model: it has no config.json")
        known = frozenset(licence.terms for licence in BASES.get(repository or "", ()))
        job.hold(Rules(huggingface_hub.licences(folder) or known or frozenset({UNSTATED})))
        huggingface_hub.link(folder, job.out["model"])
        job.done(f"{path or repository}{f' at {folder.name}' if repository else ''}")


if __name__ == "__main__":
    main()
