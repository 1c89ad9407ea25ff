"""Join the benchmark and further held-out sets to one table of questions."""

from collections import Counter
from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--benchmark", type=Path, required=True, help="qa table of the benchmark")
    arguments.add_argument("--heldout", type=Path, nargs="+", required=True, help="qa tables of further held-out sets")
    arguments.add_argument("--joined", type=Path, required=True, help="qa table (written)")
    with Job(arguments, inputs=["benchmark", "heldout"], outputs=["joined"]) as job:
        import pyarrow as pa

        from medmim.tables import table_io

        parts = [table_io.read(path, "qa") for path in (job.args.benchmark, *job.args.heldout)]
        joined = pa.concat_tables(parts)
        if twice := [qa_id for qa_id, count in Counter(joined["qa_id"].to_pylist()).items() if count > 1]:
            raise UserError(f"{len(twice)} questions stand in two of the tables, such as {twice[0]}")
        table_io.write(job.out["joined"], "qa", joined)
        sets = Counter(joined["set"].to_pylist())
        job.done(f"{len(joined)} questions: " + ", ".join(f"{name} {count}" for name, count in sets.items()))


if __name__ == "__main__":
    main()
