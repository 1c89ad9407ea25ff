"""List the images of the benchmark that are copies of images of training: the same pixels, or near copies.

Of the questions given, those of the split benchmark are one side and all others the other; only images that they show are
compared. medmim.questions.near_copies says what a near copy is.
"""

from collections import Counter
from pathlib import Path

from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--qa", type=Path, nargs="+", required=True, help="qa tables of both splits")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables that hold what they show")
    arguments.add_argument("--copies", type=Path, required=True, help="copies table (written)")
    with Job(arguments, inputs=["qa", "images"], outputs=["copies"]) as job:
        from medmim.questions.copies import Pictures, collect_shown_images, find_copies
        from medmim.tables import table_io

        shown = collect_shown_images(job.args.qa)
        pictures = Pictures.from_tables(job.args.images, [*shown.benchmark, *shown.training])
        rows = find_copies(shown, pictures)
        table_io.write_table(job.out["copies"], "copies", rows)
        relations = Counter(row["relation"] for row in rows)
        job.set_summary(
            f"{len(shown.benchmark)} images of the benchmark, {len(shown.training)} others: {relations['exact']} exact and "
            f"{relations['near']} near copies"
        )


if __name__ == "__main__":
    main()
