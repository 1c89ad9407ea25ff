"""Turn the authors' released question files into qa tables.

Reads every *.json that the index lists and checks it against the index. A file that is not a list of records stops the
program with its line; a record that can't be used is listed in the rejected table, and above cfg max_rejected (a share of
all records; exact repeats are listed but don't count) the program stops.
"""

from pathlib import Path, PurePosixPath

from medmim.common.errors import UserError
from medmim.provenance.job import Job, log, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--index", type=Path, required=True, help="files table of the release's folder")
    arguments.add_argument("--root", type=Path, help="that folder; by default the one the index stands in")
    arguments.add_argument("--train", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--benchmark", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    with Job(arguments, inputs=["index"], outputs=["train", "benchmark", "rejected"]) as job:
        from medmim.benchmarks.released import convert, records
        from medmim.common import files
        from medmim.tables import table_io

        root = job.args.root or job.args.index.parent
        read = []
        for entry in table_io.read(job.args.index, "files").to_pylist():
            name = entry["path"]
            if not name.endswith(records.SUFFIX) or any(part.startswith(".") for part in PurePosixPath(name).parts):
                continue
            if not (path := root / name).is_file():
                raise UserError(f"{path}: listed in {job.args.index}, but not there")
            if files.sha256(path) != entry["sha256"]:
                raise UserError(f"{path} changed since {job.args.index} was made: make the index again")
            read.append((records.slot(name), entry["sha256"], records.read(path, name)))
        if not read:
            raise UserError(f"{root}: no {records.SUFFIX} file: expected the release's question files")
        done = convert.convert(read)
        allowed = float(job.cfg.get("max_rejected", 0.01))
        if done.unusable > allowed * done.records:
            first = "\n".join(f"  {r['item']}: {r['reason']}" for r in done.rejected[:5])
            raise UserError(
                f"{done.unusable} of {done.records} released records can't be used, more than max_rejected {allowed:g} allows; "
                f"the first:\n{first}"
            )
        if not done.rows["benchmark"]:
            raise UserError(f"{root}: no benchmark question among {len(read)} files: expected Med_MIM_benchmark_*.json")
        if not done.rows["train"]:
            log.warning("%s: no training question: nothing can be tuned on this release", root)
        table_io.write(job.out["train"], "qa", done.rows["train"])
        table_io.write(job.out["benchmark"], "qa", done.rows["benchmark"])
        table_io.write(job.out["rejected"], "rejected", done.rejected)
        made = ", ".join(f"{len(rows)} {split}" for split, rows in done.rows.items())
        job.done(f"{made} questions; of {done.records} records {done.unusable} unusable, {done.repeats} repeats")


if __name__ == "__main__":
    main()
