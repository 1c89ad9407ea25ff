"""Write the card of a tuned model: data, recipe, scores, licences, intended use. All of it comes from the run.

cfg: {"model", "base", "hub", "family", "system", "seed", "sources": {name: origin},
"providers": {name: terms} of the real ones, "tuning"}.
"""

from pathlib import Path

from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="training questions")
    arguments.add_argument("--samples", type=Path, required=True, help="training samples made of them")
    arguments.add_argument("--tuned", type=Path, required=True, help="index of the tuned model's folder")
    arguments.add_argument("--leaderboard", type=Path, help="leaderboard, for the scores")
    arguments.add_argument("--card", type=Path, required=True, help="Markdown (written)")
    with Job(arguments, inputs=["qa", "samples", "tuned", "leaderboard"], outputs=["card"]) as job:
        from medmim.reporting.model_card.page import render_card
        from medmim.tables import table_io

        board = table_io.read_frame(job.args.leaderboard, "leaderboard") if job.args.leaderboard else None
        names = {"qa": "training questions", "samples": "training samples", "tuned": "weights (index of their files)"}
        hashes = {label: str(job.input_records[name][0]["sha256"]) for name, label in names.items()}
        text = render_card(job.cfg, hashes, board)
        job.out["card"].write_text(text, encoding="utf-8")
        job.set_summary(f"{len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
