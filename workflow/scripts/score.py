"""Score one model's replies: closed questions by the option named and by likelihood, open ones by overlap with the gold.

cfg: conditions (those that the model was asked under).
"""

import gc
from pathlib import Path

from medmim.job import Job, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="benchmark questions (qa table)")
    arguments.add_argument("--predictions", type=Path, nargs="+", required=True, help="the model's predictions, all conditions")
    arguments.add_argument("--answers", type=Path, required=True, help="answers table (written)")
    with Job(arguments, inputs=["qa", "predictions"], outputs=["answers"]) as job:
        import pyarrow.compute as pc

        from medmim import tables
        from medmim.score import extract
        from medmim.score.answers import answers

        gc.disable()  # nothing made here refers back to itself, and looking for what does takes a third of the time
        qa = tables.read(job.args.qa, "qa")
        found = answers(qa, [tables.read(path, "predictions") for path in job.args.predictions], job.cfg.get("conditions", ()))
        tables.write(job.out["answers"], "answers", found)
        statuses = found.filter(pc.equal(found["metric"], "accuracy"))["status"].to_pylist()
        read = f"{statuses.count('ok')} of {len(statuses)} closed replies read"
        job.extra["questions_with_duplicate_options"] = sum(map(extract.duplicates, filter(None, qa["options"].to_pylist())))
        job.done(f"{found['model'][0]}: {len(qa)} questions, {read}")


if __name__ == "__main__":
    main()
