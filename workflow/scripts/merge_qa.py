"""Merge the questions of all sources into the training set, the benchmark and the pretraining set.

cfg: seed; train and benchmark, at most how many questions of each set; held_out, the sources' held-out sets and labels;
pretrain, how many for tiny base models (0: none); open_fractions, the share of open questions of sets. No patient and no image
of the benchmark is in training, nor a copy of an image that --copies lists. What is turned away is listed in --rejected. Each set
of questions is under the data-use policies of the sources that have questions in it.
"""

import gc
import logging
from collections import defaultdict
from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser

log = logging.getLogger("medmim")


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--qa", type=Path, nargs="+", required=True, help="qa tables of the sources (read)")
    arguments.add_argument("--images", type=Path, nargs="*", default=[], help="images tables, to look images up in (read)")
    arguments.add_argument("--copies", type=Path, help="copies table: images that are copies of the benchmark's (read)")
    arguments.add_argument("--train", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--benchmark", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--pretrain", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    splits = ["train", "benchmark", "pretrain"]
    with Job(arguments, inputs=["qa", "images", "copies"], outputs=[*splits, "rejected"]) as job:
        from medmim.questions.copies import CopyIndex
        from medmim.questions.split import EmptySetError, merge_questions
        from medmim.tables import table_io
        from medmim.tables.data_policy import DataPolicy

        gc.disable()  # nothing made here refers back to itself

        rows = []
        policies: defaultdict[str, DataPolicy] = defaultdict(DataPolicy)  # of each source
        for path in job.args.qa:
            table_rows = table_io.read_table(path, "qa").to_pylist()
            for source in {row["source"] for row in table_rows}:
                policies[source] |= DataPolicy.from_table(path)
            rows += table_rows
        images = {
            i for path in job.args.images for i in table_io.read_table(path, "images", ["image_id"])["image_id"].to_pylist()
        }
        options = {name: value for name, value in job.cfg.items() if name != "held_out"}
        try:
            copies = CopyIndex.from_table(job.args.copies)
            merged = merge_questions(rows, images=images if job.args.images else None, copies=copies, **options)
        except EmptySetError as error:
            raise UserError(str(error)) from None
        for name in splits:
            policy = DataPolicy()
            for source in {row["source"] for row in merged.splits[name]}:
                policy |= policies[source]
            with job.apply_output_policy(policy, name):
                table_io.write_table(job.out[name], "qa", merged.splits[name])
        table_io.write_table(job.out["rejected"], "rejected", merged.rejected)
        for line in merged.short:
            log.warning("fewer than wanted: %s", line)
        job.extra_fields["short"] = merged.short
        job.set_summary(merged.format_counts() + (f"; {len(merged.rejected)} rejected" if merged.rejected else ""))


if __name__ == "__main__":
    main()
