"""Bring a published model to its place: from the hub at its revision, or from a folder of the user's.

cfg: family, hub and revision or path, chat and thinking. The files are linked, not copied: the hub's cache or the user's folder
keeps the bytes. They are under the licence that the model's card states, else what medmim.reporting.model_card.licences knows of
it. Weights that do not fit the model's config, and a tokenizer or processor that its family can't use, are refused here, before
anything is built upon them.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.models.families.registry import FAMILY_MODULE
from medmim.provenance.job import Job, build_parser
from medmim.tables.data_policy import UNSTATED_LICENCE, DataPolicy

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="index of the model's folder (written)")
    with Job(arguments, outputs=["model"], use_cache=False, modules=[FAMILY_MODULE]) as job:
        from PIL import Image

        from medmim.common import huggingface_hub
        from medmim.models import weights
        from medmim.models.prompting import load_prompter
        from medmim.reporting.model_card.licences import BASE_LICENCES

        family, repository, revision, path = (job.cfg[name] for name in ("family", "hub", "revision", "path"))
        if path:
            folder = Path(path).resolve()
        else:
            folder = huggingface_hub.download_snapshot(repository, revision, ignore_patterns=["*.bin", "*.pth", "*.gguf"])
            job.extra_fields["revision"] = folder.name
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no model: it has no config.json")
        if not any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
            raise UserError(f"{folder} holds no weights of a model: none of its files is {' or '.join(WEIGHT_FILES)}")
        weights.check_folder(folder, family=family)
        load_prompter(family, folder, Image.open, chat=job.cfg["chat"], thinking=job.cfg["thinking"])
        known_licences = frozenset(licence.terms for licence in BASE_LICENCES.get(repository or "", ()))
        job.add_policy(DataPolicy(huggingface_hub.read_licences(folder) or known_licences or frozenset({UNSTATED_LICENCE})))
        huggingface_hub.link_files(folder, job.out["model"])
        job.set_summary(f"{path or repository}{f' at {folder.name}' if repository else ''}")


if __name__ == "__main__":
    main()
