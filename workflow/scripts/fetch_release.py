"""Bring the authors' released question files into the run: from what the user has, or by download.

With --release: question files, and archives of them, as medmim.benchmarks.released.question_files finds them.
cfg: url, of an archive (zip or tar) at a pinned commit, and sha256, its hash, used without --release; rules (of use, as
medmim.tables.data_policy records them). Only JSON files are kept, beside the index.
"""

import os
from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser
from medmim.tables.data_policy import DataPolicy


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--release", type=Path, nargs="*", default=[], help="question files and archives of them")
    arguments.add_argument("--index", type=Path, required=True, help="files.parquet of the folder to fill (written)")
    with Job(arguments, inputs=["release"], outputs=["index"]) as job:
        from medmim.benchmarks.released.download import fetch_release
        from medmim.benchmarks.released.question_files import copy_question_files

        job.add_policy(DataPolicy.from_record(job.cfg.get("rules", {})))
        if job.args.release:
            written = copy_question_files(job.args.release, job.out["index"])
            job.set_summary(f"{len(written)} files from {os.path.commonpath(job.args.release)}")
            return
        url, sha256 = job.cfg.get("url"), job.cfg.get("sha256")
        if not url or not sha256:
            raise UserError("qa.release needs url and sha256: where the archive is, and the hash it must have")
        job.set_summary(f"{len(fetch_release(url, sha256, job.out['index']))} files from {url}")


if __name__ == "__main__":
    main()
