"""Print the leaderboard for papers: every cell as CSV, and the paper's arrangement as Markdown and LaTeX (booktabs).

cfg: models (name -> settings), min_open_ranked, precision, versions (package -> version that made the replies).
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from medmim.provenance.job import Job, parser


def behind(job: Job) -> list[dict[str, str]]:
    """What stands behind each model's scores: its weights, numbers, prompts, questions and libraries."""
    import pyarrow.compute as pc

    from medmim.tables import table_io

    indexes = {Path(str(d["path"])).parent.name: str(d["sha256"])[:12] for d in job.inputs["weights"]}
    asked = {}
    for path in job.args.predictions:
        found = table_io.read(path, "predictions", ["model", "condition", "prompt_sha256"])
        prompts = "".join(found.filter(pc.equal(found["condition"], "plain"))["prompt_sha256"].to_pylist())
        asked[found["model"][0].as_py()] = sha256(prompts.encode()).hexdigest()[:12]
    data = str(job.inputs["qa"][0]["sha256"])[:12]
    versions = ", ".join(f"{name} {version}" for name, version in job.cfg["versions"].items())

    def row(name: str, model: dict[str, Any]) -> dict[str, str]:
        base = job.cfg["models"].get(model.get("base") or "", model)
        where = base.get("hub") or base.get("path") or ("synthetic, made here" if base.get("tiny") else "endpoint")
        return {
            "model": name,
            "weights": where if base is model else f"{where}, tuned here",
            "revision": base.get("revision") or "–",
            "files": " + ".join(indexes[n] for n in (model.get("base"), name) if n in indexes) or "–",
            "precision": job.cfg["precision"] if indexes.keys() & {name, model.get("base")} else "–",
            "prompts": asked[name],
            "questions": data,
            "libraries": versions,
        }

    return [row(name, model) for name, model in job.cfg["models"].items() if name in asked]


def main() -> None:
    arguments = parser(__doc__)
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
        from medmim.reporting.report.arranged import arranged
        from medmim.reporting.report.board import read_paper
        from medmim.tables import table_io

        board = table_io.frame(job.args.leaderboard, "leaderboard")
        board.to_csv(job.out["csv"], index=False, lineterminator="\n")
        made = arranged(
            board,
            list(job.cfg["models"]),
            paper=read_paper(job.args.paper) if job.args.paper else {},
            least=job.cfg["min_open_ranked"],
            behind=behind(job),
        )
        job.out["markdown"].write_text("\n".join(table.markdown() for table in made), encoding="utf-8")
        job.out["latex"].write_text("\n".join(table.latex() for table in made), encoding="utf-8")
        job.done(f"{len(board)} cells, {len(made)} tables")


if __name__ == "__main__":
    main()
