"""Put the released questions upon the sources' images; leave out those whose images are not there.

cfg: sources, those of the config; max_missing_images, the share of their questions that may lack an image before the program
stops. What is left out is listed in --rejected with its reason, as is what the import turned away. Each set of questions is under
the data-use policies of the sources that have questions in it.
"""

from pathlib import Path

from medmim.provenance.job import Job, build_parser, log


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--qa", type=Path, nargs="+", required=True, help="qa tables of the release (read)")
    arguments.add_argument("--unusable", type=Path, required=True, help="rejected table of their import (read)")
    arguments.add_argument("--images", type=Path, nargs="*", default=[], help="released_images tables of the sources (read)")
    arguments.add_argument("--train", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--benchmark", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    with Job(arguments, inputs=["qa", "unusable", "images"], outputs=["train", "benchmark", "rejected"]) as job:
        from medmim.benchmarks.released.select import select_questions
        from medmim.tables import table_io
        from medmim.tables.data_policy import DataPolicy, combine_policies
        from medmim.tables.rejections import get_list_path, keep_rejections, summarize_rejections

        policies: dict[str, DataPolicy] = {}
        images = []
        for path in job.args.images:
            rows = table_io.read_table(path, "released_images").to_pylist()
            policies |= {row["source"]: DataPolicy.from_table(path) for row in rows[:1]}
            images += rows
        questions = [row for path in job.args.qa for row in table_io.read_table(path, "qa").to_pylist()]
        unusable = table_io.read_table(job.args.unusable, "rejected").to_pylist()
        selection = select_questions(questions, images, job.cfg["sources"])
        with keep_rejections(get_list_path(job.args.log, job.args.rejected), lambda: selection.left_out):
            selection.check_missing_share(job.cfg["max_missing_images"])
        for split, rows in selection.rows.items():
            policy = combine_policies(job.args.qa)
            for source in {row["source"] for row in rows}:
                policy |= policies[source]
            with job.apply_output_policy(policy, split):
                table_io.write_table(job.out[split], "qa", rows)
        table_io.write_table(job.out["rejected"], "rejected", [*unusable, *selection.left_out])
        if selection.left_out:
            log.info("left out, of %d questions:%s", len(questions), summarize_rejections(selection.left_out))
        split_counts = ", ".join(f"{len(rows)} {split}" for split, rows in selection.rows.items())
        job.set_summary(
            f"{split_counts} questions; of {len(questions)} released {len(selection.missing)} lack an image, "
            f"{len(selection.of_other_sources)} are of other sources, {len(selection.repeats)} repeats"
        )


if __name__ == "__main__":
    main()
