"""Fine-tune a base model on multi-image questions: its language model by LoRA or in full, its projector in full, vision frozen.

cfg: {"family": ..., "seed": ..., "tuning": the section Tuning}. On several GPUs, start it by torchrun, or in a SLURM job by srun,
a process a GPU. On SIGTERM it ends its step, writes a checkpoint, has SLURM queue the job again and exits with status 75; it goes
on from its newest whole checkpoint, wherever it is started again. Checkpoints are deleted once the result is there.
"""

from pathlib import Path

from medmim.config.training import Tuning
from medmim.models.families.registry import MODULE
from medmim.provenance.job import Job, parser
from medmim.training.runtime.preemption import stoppable
from medmim.training.runtime.process_group import Group


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="index of the base model's folder")
    arguments.add_argument("--samples", type=Path, required=True, help="training samples of the family")
    arguments.add_argument("--pixels", type=Path, required=True, help="their images' pixels")
    arguments.add_argument("--tuned", type=Path, required=True, help="index of the folder of the adapter, or model (written)")
    arguments.add_argument("--loss", type=Path, required=True, help="loss history (written)")
    arguments.add_argument("--checkpoints", type=Path, required=True, help="folder for checkpoints, deleted at the end")
    arguments.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's scalars (written)")
    with (
        Group.of_environment() as group,
        stoppable(group.first) as stop,
        Job(
            arguments,
            inputs=["model", "samples", "pixels"],
            outputs=["tuned", "loss"],
            modules=[MODULE],
            scratch=["checkpoints"],
            before=lambda cfg: group.check(Tuning(**cfg["tuning"])),
            processes=group,
        ) as job,
    ):
        from medmim.models import weights
        from medmim.models.families.base import Layout
        from medmim.tables import table_io
        from medmim.training.data.dataset import Shards
        from medmim.training.finetune import save, size, tune
        from medmim.training.runtime import environment
        from medmim.training.runtime.throughput import Board

        family, seed, tuning = job.cfg["family"], job.cfg["seed"], Tuning(**job.cfg["tuning"])
        environment.settle(tuning, seed)
        base = job.args.model.parent
        layout = Layout.open(family, base)
        shards = Shards(job.args.samples, job.args.pixels)
        trainer, rows, measured = tune(
            load=lambda: weights.load(base, family=family, precision=tuning.precision),
            name=base.name,
            layout=layout,
            dataset=shards,
            lengths=shards.lengths,
            tuning=tuning,
            seed=seed,
            folder=job.args.checkpoints / job.key()[:16],
            group=group,
            stop=stop,
            superseded=job.superseded,
            board=Board(job.args.tensorboard),
        )
        save(trainer, job.out["tuned"], base, tuning, job.first)
        if job.first:
            table_io.write(job.out["loss"], "loss", rows)
        job.extra["measured"] = measured
        trained = sum(size(p) for p in trainer.model.parameters() if p.requires_grad)
        job.done(f"{len(shards)} samples, {len(rows)} steps, {trained:,} weights trained, loss {rows[-1]['loss']:.3f}")


if __name__ == "__main__":
    main()
