"""Say what a run needs before it starts: licences, credentials and whether they work, bytes, disk, questions, GPU hours.

Disk is that of what is fetched and of the checkpoints of trainings.

cfg: sources (of each: origin, root, limit), download (the section download), models (of each from the hub: hub, revision),
questions (of each split: how many of a kind), trainings (the section models, where one is tuned), writing (budget_tokens,
budget_usd, where a language model writes), folder (the run's). Exits with 1 where something is missing. It asks each server a
little, and writes nothing. GPU hours are those of an H100.
"""

from pathlib import Path
from typing import Any

from medmim.common.errors import UserError
from medmim.config.source_plugins import SOURCES, list_parts
from medmim.provenance.job import Job, build_parser


def assess_checkpoints(cfg: dict[str, Any]) -> list[Any]:
    """What the run's trainings need of the disk, as `preflight.Requirement`."""
    from medmim.sources.preflight import Requirement
    from medmim.training.planning.disk import count_run_checkpoints

    folder = Path(cfg["folder"])
    counted = count_run_checkpoints(cfg["trainings"], folder, cfg["questions"]["train"])
    return [
        Requirement(f"checkpoints of {name}", "", "made here", "none needed", 0, size, basis, folder)
        for name, size, basis in counted
    ]


def main() -> None:
    arguments = build_parser(__doc__)
    downloads = [f"medmim.sources.{source}.download" for source in SOURCES if "download" in list_parts(source)]
    with Job(arguments, modules=downloads) as job:
        from medmim.sources import preflight
        from medmim.training.planning import gpu_types, memory

        cfg = job.cfg
        needs, gaps = preflight.collect_requirements(cfg, assess_checkpoints(cfg))
        gpu = gpu_types.find_gpu_type("H100")
        assert gpu is not None
        costs = memory.format_gpu_hours(cfg["trainings"], Path(cfg["folder"]), cfg["questions"]["train"], gpu)
        if cfg["writing"]:
            writing_budget = "{budget_tokens:,} tokens and {budget_usd:,.2f} USD".format(**cfg["writing"])
            costs.append(f"Language-model writing: at most {writing_budget}")
        preflight.print_requirements(needs, cfg["questions"], costs, gaps)
        if gaps:
            raise UserError(f"{len(gaps)} thing{'s are' if len(gaps) > 1 else ' is'} missing for this run: see above")
        job.set_summary("nothing is missing for this run")


if __name__ == "__main__":
    main()
