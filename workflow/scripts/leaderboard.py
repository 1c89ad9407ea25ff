"""Make the leaderboard of all models: means a set, intervals over patients, differences to base and controls, baselines.

And the comparisons: every pair of models on every set, with p-values. cfg: seed, resamples, pairs (tuned model: its base).
"""

import gc
from pathlib import Path

from medmim.provenance.job import Job, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="benchmark questions (qa table)")
    arguments.add_argument("--train", type=Path, required=True, help="training questions (qa table), which clean scores avoid")
    arguments.add_argument("--answers", type=Path, nargs="+", required=True, help="answers tables of all models")
    arguments.add_argument("--leaderboard", type=Path, required=True, help="leaderboard table (written)")
    arguments.add_argument("--comparisons", type=Path, required=True, help="comparisons table (written)")
    with Job(arguments, inputs=["qa", "train", "answers"], outputs=["leaderboard", "comparisons"]) as job:
        from medmim.scoring.leaderboard import SHARED, leaderboard
        from medmim.tables import table_io

        gc.disable()  # nothing made here refers back to itself
        train = table_io.read(job.args.train, "qa", list(SHARED))
        given = [table_io.read(path, "answers") for path in job.args.answers]
        found = leaderboard(table_io.read(job.args.qa, "qa"), train, given, **job.cfg)
        table_io.write(job.out["leaderboard"], "leaderboard", found.leaderboard)
        table_io.write(job.out["comparisons"], "comparisons", found.comparisons)
        models, cells, pairs = {row["model"] for row in found.leaderboard}, len(found.leaderboard), len(found.comparisons)
        job.done(f"{len(models)} models and baselines, {cells} cells, {pairs} comparisons, {job.cfg['resamples']} resamples")


if __name__ == "__main__":
    main()
