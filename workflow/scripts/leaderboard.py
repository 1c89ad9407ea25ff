"""Make the leaderboard of all models: means a set, intervals over patients, differences to base and to blind, baselines."""

from pathlib import Path

from medmim.job import Job, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="benchmark questions (qa table)")
    arguments.add_argument("--answers", type=Path, nargs="+", required=True, help="answers tables of all models")
    arguments.add_argument("--leaderboard", type=Path, required=True, help="leaderboard table (written)")
    with Job(arguments, inputs=["qa", "answers"], outputs=["leaderboard"]) as job:
        from medmim import tables
        from medmim.score.leaderboard import leaderboard

        rows = leaderboard(
            tables.read(job.args.qa, "qa"), [tables.frame(path, "answers") for path in job.args.answers], **job.cfg
        )
        tables.write(job.out["leaderboard"], "leaderboard", rows)
        models = {row["model"] for row in rows}
        job.done(f"{len(models)} models and baselines, {len(rows)} cells, {job.cfg['resamples']} resamples")


if __name__ == "__main__":
    main()
