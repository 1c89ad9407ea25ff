"""Print the leaderboard for papers: every cell as CSV, and the paper's arrangement as Markdown and LaTeX (booktabs).

cfg: models (name -> settings), set_labels (further held-out set -> its name for people), min_open_ranked, precision, versions
(package -> version that made the replies).
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from medmim.provenance.job import Job, build_parser


def build_provenance_rows(job: Job) -> list[dict[str, str]]:
    """What stands behind each model's scores: its weights, numbers, prompts, questions and libraries."""
    import pyarrow.compute as pc

    from medmim.tables import table_io

    indexes = {Path(str(d["path"])).parent.name: str(d["sha256"])[:12] for d in job.input_records["weights"]}
    prompt_hashes = {}
    for path in job.args.predictions:
        predictions = table_io.read_table(path, "predictions", ["model", "condition", "prompt_sha256"])
        prompts = "".join(predictions.filter(pc.equal(predictions["condition"], "plain"))["prompt_sha256"].to_pylist())
        prompt_hashes[predictions["model"][0].as_py()] = sha256(prompts.encode()).hexdigest()[:12]
    questions_hash = str(job.input_records["qa"][0]["sha256"])[:12]
    versions = ", ".join(f"{name} {version}" for name, version in job.cfg["versions"].items())

    def build_row(name: str, model: dict[str, Any]) -> dict[str, str]:
        base = job.cfg["models"].get(model.get("base") or "", model)
        origin = base.get("hub") or base.get("path") or ("synthetic, made here" if base.get("tiny") else "endpoint")
        return {
            "model": name,
            "weights": origin if base is model else f"{origin}, tuned here",
            "revision": base.get("revision") or "–",
            "files": " + ".join(indexes[n] for n in (model.get("base"), name) if n in indexes) or "–",
            "precision": job.cfg["precision"] if indexes.keys() & {name, model.get("base")} else "–",
            "prompts": prompt_hashes[name],
            "questions": questions_hash,
            "libraries": versions,
        }

    return [build_row(name, model) for name, model in job.cfg["models"].items() if name in prompt_hashes]


def main() -> None:
    arguments = build_parser(__doc__)
    add = arguments.add_argument
    add("--leaderboard", type=Path, required=True, help="leaderboard table")
    add("--qa", type=Path, required=True, help="benchmark questions (qa table)")
    add("--predictions", type=Path, nargs="+", required=True, help="predictions of all models")
    add("--weights", type=Path, nargs="*", default=[], help="files.parquet of the models' folders")
    add("--paper", type=Path, help="the paper's figures as you filled them in: CSV with model, set, accuracy (percent)")
    add("--csv", type=Path, required=True, help="every cell (written)")
    add("--markdown", type=Path, required=True, help="the arrangement of the paper (written)")
    add("--latex", type=Path, required=True, help="the same, for a preamble with booktabs (written)")
    inputs = ["leaderboard", "qa", "predictions", "weights", "paper"]
    with Job(arguments, inputs=inputs, outputs=["csv", "markdown", "latex"]) as job:
        from medmim.reporting.report.arranged import build_paper_tables
        from medmim.reporting.report.board import read_paper_scores
        from medmim.tables import table_io

        board = table_io.read_frame(job.args.leaderboard, "leaderboard")
        board.to_csv(job.out["csv"], index=False, lineterminator="\n")
        paper_tables = build_paper_tables(
            board,
            list(job.cfg["models"]),
            paper=read_paper_scores(job.args.paper, list(job.cfg["models"])) if job.args.paper else {},
            min_open_items=job.cfg["min_open_ranked"],
            provenance_rows=build_provenance_rows(job),
            set_labels=job.cfg.get("set_labels"),
        )
        job.out["markdown"].write_text("\n".join(table.to_markdown() for table in paper_tables), encoding="utf-8")
        job.out["latex"].write_text("\n".join(table.to_latex() for table in paper_tables), encoding="utf-8")
        job.set_summary(f"{len(board)} cells, {len(paper_tables)} tables")


if __name__ == "__main__":
    main()
