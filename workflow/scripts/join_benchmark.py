"""Join the benchmark and further held-out sets to one table of questions."""

from collections import Counter
from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--benchmark", type=Path, required=True, help="qa table of the benchmark")
    arguments.add_argument("--heldout", type=Path, nargs="+", required=True, help="qa tables of further held-out sets")
    arguments.add_argument("--joined", type=Path, required=True, help="qa table (written)")
    with Job(arguments, inputs=["benchmark", "heldout"], outputs=["joined"]) as job:
        import pyarrow as pa

        from medmim.tables import table_io

        parts = [table_io.read_table(path, "qa") for path in (job.args.benchmark, *job.args.heldout)]
        joined = pa.concat_tables(parts)
        if duplicate_ids := [qa_id for qa_id, count in Counter(joined["qa_id"].to_pylist()).items() if count > 1]:
            raise UserError(f"{len(duplicate_ids)} questions stand in two of the tables, such as {duplicate_ids[0]}")
        table_io.write_table(job.out["joined"], "qa", joined)
        sets = Counter(joined["set"].to_pylist())
        job.set_summary(f"{len(joined)} questions: " + ", ".join(f"{name} {count}" for name, count in sets.items()))


if __name__ == "__main__":
    main()
