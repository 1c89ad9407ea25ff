"""Write the benchmark, with its images, for another tool.

hf: a folder for datasets.load_dataset and the Hugging Face hub. lmms-eval: a folder of tasks. vlmevalkit: TSV files.
cfg: run (its name), synthetic (sources that are phantoms), credentialed (sources that may not be passed on), allowed (export
them all the same), max_new_tokens (longest reply, for tools that are told it).
"""

import importlib
from pathlib import Path

from medmim.job import Job, parser

FORMATS = ("hf", "lmms-eval", "vlmevalkit")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--format", required=True, choices=FORMATS, help="the tool")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table of the benchmark")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--export", type=Path, required=True, help="files.parquet of the folder to fill (written)")
    with Job(arguments, inputs=["qa", "images"], outputs=["export"], modules=["medmim.export.{format}"]) as job:
        from medmim.export.benchmark import Benchmark

        cfg, args = job.cfg, job.args
        given = {name: cfg[name] for name in ("run", "synthetic", "credentialed", "allowed")}
        benchmark = Benchmark.read(args.qa, args.images, **given)
        layout = importlib.import_module(f"medmim.export.{args.format.replace('-', '_')}")
        made = layout.write(job.out["export"], benchmark, cfg)
        warning = "; CREDENTIALED: do not publish" if benchmark.credentialed else ""
        job.done(f"{args.format}: {made}{warning}")


if __name__ == "__main__":
    main()
