"""Score one model's replies: closed questions by the option named and by likelihood, open ones by overlap with the gold.

cfg: conditions (those that the model was asked under).
"""

import gc
from pathlib import Path

from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="benchmark questions (qa table)")
    arguments.add_argument("--predictions", type=Path, nargs="+", required=True, help="the model's predictions, all conditions")
    arguments.add_argument("--answers", type=Path, required=True, help="answers table (written)")
    with Job(arguments, inputs=["qa", "predictions"], outputs=["answers"]) as job:
        import pyarrow.compute as pc

        from medmim.scoring import reply_parser
        from medmim.scoring.score_replies import score_predictions
        from medmim.tables import table_io

        gc.disable()  # nothing made here refers back to itself, and looking for what does takes a third of the time
        qa = table_io.read_table(job.args.qa, "qa")
        scored_answers = score_predictions(
            qa, [table_io.read_table(path, "predictions") for path in job.args.predictions], job.cfg.get("conditions", ())
        )
        table_io.write_table(job.out["answers"], "answers", scored_answers)
        statuses = scored_answers.filter(pc.equal(scored_answers["metric"], "accuracy"))["status"].to_pylist()
        read_summary = f"{statuses.count('ok')} of {len(statuses)} closed replies read"
        job.extra_fields["questions_with_duplicate_options"] = sum(
            map(reply_parser.has_duplicate_options, filter(None, qa["options"].to_pylist()))
        )
        job.set_summary(f"{scored_answers['model'][0]}: {len(qa)} questions, {read_summary}")


if __name__ == "__main__":
    main()
