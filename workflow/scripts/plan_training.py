"""Plan trainings before they are queued: parameters, FLOPs, memory of each GPU by part, disk, packs, steps and GPU hours.

    python workflow/scripts/plan_training.py --config config/config.yaml --gpu H100

Each model with a recipe is built without its weights, on torch's meta device, and counted. Its config.json comes from the run's
models/NAME, from the model's own folder, or, for the two published bases, from numbers in
medmim.training.planning.architecture. Lengths of
samples come from the run's shards where these are made, else from the numbers of questions asked for, and then they are assumed.

Where a recipe states gpu_memory_gb, Snakemake refuses one that does not fit when it plans; here it only says so.
cfg: {"models": the section models, "questions": the section qa.train, "folder": the run's}.
"""

import json
from pathlib import Path
from typing import Any

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser


def read_config(path: Path) -> dict[str, Any]:
    """The parts of a YAML configuration that this program uses, as --cfg has them."""
    from medmim.config.run_config import ConfigError, load_config

    try:
        run = load_config(path)
    except (ConfigError, OSError) as error:
        raise UserError(str(error)) from None
    return {"models": run.model_dump()["models"], "questions": run.qa.train.model_dump(), "folder": run.run_folder}


def choose_models(models: dict[str, Any], names: list[str] | None) -> list[str]:
    """The models asked for, by default all that have a recipe."""
    with_recipe = [name for name, model in models.items() if model["base"]]
    if unknown_models := [name for name in names or () if name not in with_recipe]:
        raise UserError(f"no model {unknown_models[0]!r} with a recipe: there are {', '.join(with_recipe)}")
    return names or with_recipe


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--config", type=Path, help="YAML configuration, in place of --cfg")
    arguments.add_argument("--models", nargs="+", help="names of the models (default: all with a recipe)")
    arguments.add_argument("--gpu", default="H100", help="type of GPU, such as H200 or A100 40GB (default: H100)")
    arguments.add_argument("--utilisation", type=float, help="share of its peak at which it computes (default: 0.4, assumed)")
    arguments.add_argument("--json", type=Path, metavar="OUT", help="the figures (written)")
    with Job(arguments) as job:
        from medmim.common import files
        from medmim.common.formatting import format_bytes
        from medmim.training.planning import disk, memory, meta_model
        from medmim.training.planning.architecture import UnknownArchitectureError
        from medmim.training.planning.gpu_types import GPU_TYPES, find_gpu_type

        cfg = read_config(job.args.config) if job.args.config else job.cfg
        if not cfg:
            raise UserError("--config names the configuration whose trainings are to be planned")
        models = cfg["models"]
        model_names = choose_models(models, job.args.models)
        gpu = find_gpu_type(job.args.gpu)
        if gpu is None:
            raise UserError(f"--gpu {job.args.gpu}: not known; there are {', '.join(g.name for g in GPU_TYPES)}")
        utilisation = job.args.utilisation or memory.UTILISATION
        descriptions, figures = [], {}
        for name in model_names:
            try:
                plan, config, source = memory.plan_run_training(models, name, Path(cfg["folder"]), cfg["questions"])
            except UnknownArchitectureError as error:
                descriptions.append(f"{name:<16}not planned: {error}")
                continue
            adapted_model = meta_model.build_adapted_model(config, plan.tuning)
            n_trained = memory.count_trained(plan.architecture, plan.tuning)
            assert meta_model.count_parameters(adapted_model, trained=True) == n_trained, (
                f"{source}: the model trains other weights than were counted"
            )
            one, peak = (count(plan.architecture, plan.tuning) for count in (disk.count_checkpoint_bytes, disk.count_peak_bytes))
            checkpoints = f"{'checkpoints':<16}{format_bytes(one)} each, {format_bytes(peak)} on the disk at a time"
            descriptions.append(f"{memory.format_plan(plan, name, source, gpu, utilisation)}\n{checkpoints}")
            figures[name] = memory.plan_record(plan, gpu, utilisation) | {"checkpoint_bytes": one, "peak_checkpoint_bytes": peak}
        for text in descriptions:
            print(f"{text}\n")
        if job.args.json:
            with files.write_atomically(job.args.json) as temporary:
                temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        job.set_summary(f"{len(figures)} of {len(model_names)} trainings planned")


if __name__ == "__main__":
    main()
