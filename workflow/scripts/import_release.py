"""Turn the authors' released question files into qa tables.

Reads every *.json that the index lists and checks it against the index. A file that is not a list of records stops the
program with its line; a record that can't be used is listed in the rejected table, and above cfg max_rejected (a share of
all records; exact repeats are listed but don't count) the program stops.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser, log


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--index", type=Path, required=True, help="files.parquet of the release's folder")
    arguments.add_argument("--train", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--benchmark", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    with Job(arguments, inputs=["index"], outputs=["train", "benchmark", "rejected"]) as job:
        from medmim.benchmarks.released import convert, question_files, records
        from medmim.common import files
        from medmim.tables import table_io
        from medmim.tables.rejections import get_list_path, keep_rejections, summarize_rejections

        root = job.args.index.parent
        index = dict(
            zip(*(c.to_pylist() for c in table_io.read_table(job.args.index, "files", ["path", "sha256"]).columns), strict=True)
        )
        release_files = []
        for name in question_files.select_question_files(index):
            if not (path := root / name).is_file():
                raise UserError(f"{path}: listed in {job.args.index}, but not there")
            if files.hash_file(path) != index[name]:
                raise UserError(f"{path} changed since {job.args.index} was made: make the index again")
            release_files.append((records.slot_from_name(name), index[name], records.read_records(path, name)))
        if not release_files:
            raise UserError(f"{root}: no {records.JSON_SUFFIX} file: expected the release's question files")
        converted = convert.convert_records(release_files)
        allowed = float(job.cfg.get("max_rejected", 0.01))
        with keep_rejections(get_list_path(job.args.log, job.args.rejected), lambda: converted.rejected):
            if converted.unusable > allowed * converted.records:
                raise UserError(
                    f"{converted.unusable} of {converted.records} released records can't be used, more than max_rejected "
                    f"{allowed:g} allows" + summarize_rejections(converted.rejected)
                )
        if not converted.rows["benchmark"]:
            raise UserError(f"{root}: no benchmark question among {len(release_files)} files: expected Med_MIM_benchmark_*.json")
        if not converted.rows["train"]:
            log.warning("%s: no training question: nothing can be tuned on this release", root)
        table_io.write_table(job.out["train"], "qa", converted.rows["train"])
        table_io.write_table(job.out["benchmark"], "qa", converted.rows["benchmark"])
        table_io.write_table(job.out["rejected"], "rejected", converted.rejected)
        split_counts = ", ".join(f"{len(rows)} {split}" for split, rows in converted.rows.items())
        job.set_summary(
            f"{split_counts} questions; of {converted.records} records {converted.unusable} unusable, {converted.repeats} repeats"
        )


if __name__ == "__main__":
    main()
