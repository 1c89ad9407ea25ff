"""Write the benchmark or the instruction set for other tools.

hf: a folder for datasets.load_dataset and the Hugging Face hub, with a datasheet and Croissant metadata. lmms-eval: a folder of
tasks. vlmevalkit: TSV files. These two are for a benchmark.
cfg: run (its name), providers (terms of the sources, by name), synthetic (sources that are phantoms), credentialed (sources
that may not be passed on), allowed (export them all the same), images (whether they go with the questions), max_new_tokens
(longest reply, for tools that are told it).
"""

import importlib
from pathlib import Path

from medmim.provenance.job import Job, build_parser

FORMATS = ("hf", "lmms-eval", "vlmevalkit")


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--format", required=True, choices=FORMATS, help="the tool")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table of what is exported")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--against", type=Path, nargs="*", default=[], help="qa tables to look for leaks in (hf)")
    arguments.add_argument("--export", type=Path, required=True, help="files.parquet of the folder to fill (written)")
    inputs = ["qa", "images", "against"]
    with Job(arguments, inputs=inputs, outputs=["export"], modules=["medmim.export.{format}"]) as job:
        from medmim.config.source_plugins import Terms
        from medmim.export.questions import Questions

        cfg, args, folder = job.cfg, job.args, job.out["export"]
        options = {name: cfg[name] for name in ("run", "synthetic", "credentialed", "allowed")}
        providers = {name: Terms.model_validate(terms) for name, terms in cfg["providers"].items()}
        questions = Questions.from_tables(args.qa, args.images, with_images=cfg["images"], providers=providers, **options)
        layout = importlib.import_module(f"medmim.export.{args.format.replace('-', '_')}")
        if args.format == "hf":
            tables = {Path(str(entry["path"])).name: str(entry["sha256"]) for name in inputs for entry in job.input_records[name]}
            summary = layout.write_export(
                folder, questions, layout.Datasheet.from_questions(questions, args.qa, args.against, tables)
            )
        else:
            summary = layout.write_export(folder, questions, cfg)
        warning = "; CREDENTIALED: do not publish" if questions.credentialed else ""
        job.set_summary(f"{questions.name}, {args.format}: {summary}{warning}")


if __name__ == "__main__":
    main()
