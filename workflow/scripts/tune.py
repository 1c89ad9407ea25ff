"""Fine-tune a base model on multi-image questions: its language model by LoRA or in full, its projector in full, vision frozen.

cfg: family, hub (the repository of the base, if it has one), seed, tuning (the section Tuning). On several GPUs, start it by
torchrun, or in a SLURM job by srun, a process a GPU. On SIGTERM it ends its step, writes a checkpoint, has SLURM queue the job
again and exits with status 75; it goes on from its newest whole checkpoint, wherever it is started again. Checkpoints are deleted
once the result is there.
"""

from pathlib import Path

from medmim.config.training import Tuning
from medmim.models.families.registry import FAMILY_MODULE
from medmim.provenance.job import Job, build_parser
from medmim.provenance.job_record import read_record, sidecar_path
from medmim.training.runtime.preemption import stop_on_sigterm
from medmim.training.runtime.process_group import ProcessGroup


def find_commit(index: Path) -> str | None:
    """Commit of the hub's repository that a model's folder was fetched from, by the record of that; None for any other folder."""
    sidecar = sidecar_path(index)
    commit: str | None = read_record(sidecar).get("revision") if sidecar.exists() else None
    return commit


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="index of the base model's folder")
    arguments.add_argument("--samples", type=Path, required=True, help="training samples of the family")
    arguments.add_argument("--pixels", type=Path, required=True, help="their images' pixels")
    arguments.add_argument("--tuned", type=Path, required=True, help="index of the folder of the adapter, or model (written)")
    arguments.add_argument("--loss", type=Path, required=True, help="loss history (written)")
    arguments.add_argument("--checkpoints", type=Path, required=True, help="folder for checkpoints, deleted at the end")
    arguments.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's scalars (written)")
    with (
        ProcessGroup.from_environment() as group,
        stop_on_sigterm(group.is_main) as stop,
        Job(
            arguments,
            inputs=["model", "samples", "pixels"],
            outputs=["tuned", "loss"],
            modules=[FAMILY_MODULE],
            scratch=["checkpoints"],
            preflight=lambda cfg: group.check_resources(Tuning(**cfg["tuning"])),
            processes=group,
        ) as job,
    ):
        from medmim.models import weights
        from medmim.models.families.base import Layout
        from medmim.models.families.registry import get_family
        from medmim.tables import table_io
        from medmim.training.data.dataset import ShardDataset
        from medmim.training.finetune import count_elements, save_tuned_model, tune_model
        from medmim.training.runtime import environment
        from medmim.training.runtime.throughput import TensorBoardLog

        family, seed, tuning = job.cfg["family"], job.cfg["seed"], Tuning(**job.cfg["tuning"])
        environment.prepare_process(tuning, seed)
        base = job.args.model.parent
        layout = Layout.from_folder(get_family(family), base)
        shards = ShardDataset(job.args.samples, job.args.pixels)
        trainer, rows, measurements = tune_model(
            load_base=lambda: weights.load_model(base, family=family, precision=tuning.precision),
            name=job.cfg["hub"] or base.name,
            revision=find_commit(job.args.model),
            layout=layout,
            dataset=shards,
            lengths=shards.lengths,
            tuning=tuning,
            seed=seed,
            folder=job.args.checkpoints / job.compute_key()[:16],
            group=group,
            stop=stop,
            is_superseded=job.is_superseded,
            board=TensorBoardLog(job.args.tensorboard),
        )
        save_tuned_model(trainer, job.out["tuned"], base, tuning, job.is_main)
        if job.is_main:
            table_io.write_table(job.out["loss"], "loss", rows)
        job.extra_fields["measured"] = measurements
        n_trained = sum(count_elements(p) for p in trainer.model.parameters() if p.requires_grad)
        job.set_summary(f"{len(shards)} samples, {len(rows)} steps, {n_trained:,} weights trained, loss {rows[-1]['loss']:.3f}")


if __name__ == "__main__":
    main()
