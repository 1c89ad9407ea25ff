"""Audit benchmark files against training files: leaks, repeats, broken options, letter skew, and what answers without looking.

Files are the authors' released JSON or our qa tables (Parquet), mixed as you like. A folder, such as a clone of the release,
stands for the question files in it of the option's split. Needs no config and no run:

    python workflow/scripts/audit_release.py --train Med-MIM --benchmark Med-MIM --json audit.json --html audit.html

The JSON maps the name of each benchmark file (of a qa table: each set in it) to its figures; medmim.benchmarks.quality.faults and
medmim.benchmarks.quality.text_only say what each figure counts. The HTML page explains them and names the records. With
--release the authors' files are audited beside, by their own training files. With --copies images are compared by content, not by
name alone.
"""

import argparse
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from medmim.benchmarks.released.question_files import find_question_files, select_question_files
from medmim.benchmarks.released.records import slot_from_name
from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser


def select_split(paths: Iterable[Path], split: str) -> list[Path]:
    """Of the release's question files those of a split, by their names. Raises UserError."""
    return [path for path in paths if slot_from_name(path.name).split == split]


def list_indexed_files(index: Path) -> list[Path]:
    """Question files of the release by the index of their folder. Raises TableError."""
    from medmim.tables import table_io

    names = table_io.read_table(index, "files", ["path"])["path"].to_pylist()
    return [index.parent / name for name in select_question_files(names)]


class FolderAction(argparse.Action):
    """Stores paths with the question files of a folder in its place: those of the split that the option is named after."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None) -> None:
        """Store the paths of an option. Ends the program where a folder has no question file."""
        try:
            paths = [file for p in values for file in (select_split(find_question_files(p), self.dest) if p.is_dir() else [p])]
        except UserError as error:
            parser.error(str(error))
        setattr(namespace, self.dest, paths)


def main() -> None:
    arguments = build_parser(__doc__)
    add = partial(arguments.add_argument, type=Path, nargs="+", required=True, action=FolderAction, metavar="PATH")
    add("--train", help="training questions")
    add("--benchmark", help="benchmark questions")
    arguments.add_argument("--json", type=Path, required=True, metavar="OUT", help="figures (written)")
    arguments.add_argument("--html", type=Path, metavar="OUT", help="readable page (written)")
    arguments.add_argument("--release", type=Path, metavar="INDEX", help="files.parquet of the release, to set beside")
    arguments.add_argument(
        "--images", type=Path, nargs="*", default=[], metavar="FILE", help="images tables, to try what size and brightness tell"
    )
    arguments.add_argument("--copies", type=Path, help="copies table of these questions' images, by find_copies.py")
    arguments.add_argument("--statistics", type=Path, metavar="OUT", help="statistics table (written)")
    inputs = ["train", "benchmark", "release", "images", "copies"]
    with Job(arguments, inputs=inputs, outputs=["json", "html", "statistics"]) as job:
        from medmim.benchmarks.quality.faults import FAULTS, NEAR_COPY
        from medmim.benchmarks.quality.page import AuditReport, render_page
        from medmim.benchmarks.quality.statistics import compute_statistics
        from medmim.questions.copies import CopyIndex, count_source_pairs
        from medmim.tables import table_io

        copies = CopyIndex.from_table(job.args.copies) if job.args.copies else None
        source_pairs = count_source_pairs(job.args.copies) if job.args.copies else None
        ours = AuditReport.from_files("ours", job.args.train, job.args.benchmark, copies, job.args.images)
        theirs = []
        if job.args.release:
            train, benchmark = (select_split(list_indexed_files(job.args.release), split) for split in ("train", "benchmark"))
            theirs = [AuditReport.from_files("release", train, benchmark)]
        if repeated_sets := [name for part in theirs for name in part.sets if name in ours.sets]:
            raise UserError(f"both among --benchmark and --release: {', '.join(repeated_sets)}")
        parts = [ours, *theirs]
        rows = [
            row
            for part in parts
            for row in [
                *compute_statistics(part.origin, "train", part.train.sets),
                *compute_statistics(
                    part.origin,
                    "benchmark",
                    {name: a.entries for name, a in part.sets.items()},
                    part.text_scores,
                    {name: {fault: len(a.where[fault]) for fault in FAULTS} for name, a in part.sets.items()},
                ),
            ]
        ]
        figures = {
            name: a.compute_figures() | part.text_scores[name].compute_figures()
            for part in parts
            for name, a in part.sets.items()
        }
        if "statistics" in job.out:
            table_io.write_table(job.out["statistics"], "statistics", rows)
        job.out["json"].write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        if "html" in job.out:
            job.out["html"].write_text(render_page(parts, rows, source_pairs), encoding="utf-8")
        leaks = sum(a.compute_figures()["shares_patient_with_train"] for a in ours.sets.values())
        total = sum(len(a.entries) for a in ours.sets.values())
        near_copies = sum(len(a.where.get(NEAR_COPY, ())) for a in ours.sets.values())
        copy_note = f", {near_copies} show a near copy of their images" if copies else ""
        beside_note = f"; {len(theirs[0].sets)} released beside" if theirs else ""
        job.set_summary(
            f"{len(ours.sets)} sets, {total} questions, {leaks} share a patient with {ours.train.questions} training questions"
            + copy_note
            + beside_note
        )


if __name__ == "__main__":
    main()
