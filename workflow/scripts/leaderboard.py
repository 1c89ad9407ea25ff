"""Make the leaderboard of all models: means a set, intervals over patients, differences to base and controls, baselines.

And the comparisons: every pair of models on every set, with p-values. cfg: seed, resamples, pairs (tuned model: its base),
held_out (the sources' held-out sets and labels).
"""

import gc
from pathlib import Path

from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="benchmark questions (qa table)")
    arguments.add_argument("--train", type=Path, required=True, help="training questions (qa table), which clean scores avoid")
    arguments.add_argument("--copies", type=Path, help="copies table: images of the benchmark that are copies of training's")
    arguments.add_argument("--answers", type=Path, nargs="+", required=True, help="answers tables of all models")
    arguments.add_argument("--leaderboard", type=Path, required=True, help="leaderboard table (written)")
    arguments.add_argument("--comparisons", type=Path, required=True, help="comparisons table (written)")
    with Job(arguments, inputs=["qa", "train", "copies", "answers"], outputs=["leaderboard", "comparisons"]) as job:
        from medmim.questions.copies import CopyIndex
        from medmim.scoring.leaderboard import SHARED_COLUMNS, build_leaderboard
        from medmim.tables import table_io

        gc.disable()  # nothing made here refers back to itself
        train = table_io.read_table(job.args.train, "qa", list(SHARED_COLUMNS))
        answer_tables = [table_io.read_table(path, "answers") for path in job.args.answers]
        options = {name: value for name, value in job.cfg.items() if name != "held_out"}
        options["copies"] = CopyIndex.from_table(job.args.copies)
        scores = build_leaderboard(table_io.read_table(job.args.qa, "qa"), train, answer_tables, **options)
        table_io.write_table(job.out["leaderboard"], "leaderboard", scores.leaderboard)
        table_io.write_table(job.out["comparisons"], "comparisons", scores.comparisons)
        models, cells, pairs = {row["model"] for row in scores.leaderboard}, len(scores.leaderboard), len(scores.comparisons)
        job.set_summary(
            f"{len(models)} models and baselines, {cells} cells, {pairs} comparisons, {job.cfg['resamples']} resamples"
        )


if __name__ == "__main__":
    main()
