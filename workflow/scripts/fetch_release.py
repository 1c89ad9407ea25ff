"""Download the authors' released question files: an archive (zip or tar) at a pinned URL, checked against its hash.

cfg: url; sha256, the expected hash of the archive; rules (of use, as medmim.tables.data_policy records them). Only its *.json
files are
kept, beside the index.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser
from medmim.tables.data_policy import DataPolicy


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--index", type=Path, required=True, help="files.parquet of the folder to fill (written)")
    with Job(arguments, outputs=["index"]) as job:
        from medmim.benchmarks.released.download import fetch_release

        job.add_policy(DataPolicy.from_record(job.cfg.get("rules", {})))
        url, sha256 = job.cfg.get("url"), job.cfg.get("sha256")
        if not url or not sha256:
            raise UserError("qa.release needs url and sha256: where the archive is, and the hash it must have")
        job.set_summary(f"{len(fetch_release(url, sha256, job.out['index']))} files from {url}")


if __name__ == "__main__":
    main()
