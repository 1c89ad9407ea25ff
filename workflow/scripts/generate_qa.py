"""Make the questions of one source from its images and findings, by templates.

cfg: seed; sets, those that the source supplies by split; benchmark_fraction, the share of patients held back; open_fraction;
open_fractions, the same by set; option_order, shuffled (default) or natural; wordings, the most of a task's form (null, the
default, for all); composed_images, the most images of a composed question (of sources that supply the set composed);
disputed_labels, whether a label that a source's experts disagree on may be a gold; pretrain, whether questions for tiny base
models are made too. For those a phantom's own truth is read from the folder of --raw, where given.
"""

import gc
from collections import Counter
from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser

TRUTH_FILE = "phantom_truth.csv"


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--source", required=True, help="name of the source, a folder of medmim/sources")
    arguments.add_argument("--images", type=Path, required=True, help="images table (read)")
    arguments.add_argument("--findings", type=Path, required=True, help="findings table (read)")
    arguments.add_argument("--raw", type=Path, help="files table of a phantom's folder (read)")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table (written)")
    with Job(
        arguments, inputs=["images", "findings", "raw"], outputs=["qa"], modules=["medmim.sources.{source}.questions"]
    ) as job:
        import pandas as pd

        from medmim.questions.cohort import FINDING_COLUMNS, IMAGE_COLUMNS
        from medmim.questions.generate import PretrainModule, QuestionModule, generate_questions
        from medmim.sources.contract import load_part
        from medmim.tables import table_io

        gc.disable()  # nothing made here refers back to itself, and looking for what does takes a quarter of the time
        images = table_io.read_frame(job.args.images, "images", [*IMAGE_COLUMNS, "origin_file"])
        findings = table_io.read_frame(job.args.findings, "findings", FINDING_COLUMNS)
        if images.empty:
            raise UserError(f"{job.args.images}: no images; nothing can be asked of source {job.args.source}")
        truth = None
        if job.cfg.get("pretrain") and job.args.raw is not None:
            path = job.args.raw.parent / TRUTH_FILE
            if not path.exists():
                raise UserError(f"{path} does not exist: pretraining questions are made of phantoms only")
            truth = pd.read_csv(path, dtype=str, keep_default_na=False)
        contract = PretrainModule if "single" in job.cfg["sets"].get("pretrain", ()) else QuestionModule
        module = load_part(job.args.source, "questions", contract)
        rows = generate_questions(job.args.source, module, images, findings, truth=truth, **job.cfg)
        table_io.write_table(job.out["qa"], "qa", rows)
        counts = Counter(row["split"] for row in rows)
        job.set_summary(f"{job.args.source}: " + (", ".join(f"{n} {split}" for split, n in counts.items()) or "no questions"))


if __name__ == "__main__":
    main()
