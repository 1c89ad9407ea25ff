"""Ask a model at an endpoint every question of the benchmark, under every condition. Nothing that was answered is asked again.

cfg: model (its name), endpoint (the section Endpoint), system (message, may be empty), conditions (names), max_new_tokens, seed,
credentialed (sources whose data may only go to an endpoint that says so). The key is read from the environment variable that
endpoint.key_env names, if any.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="qa table")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--replies", type=Path, required=True, help="folder that keeps every reply, for this and later runs")
    arguments.add_argument("--predictions", type=Path, required=True, help="predictions table (written)")
    with Job(arguments, inputs=["qa", "images"], outputs=["predictions"], use_cache=False) as job:
        from medmim.config.endpoint import Endpoint
        from medmim.endpoints.client import send_requests
        from medmim.endpoints.reply_store import ReplyStore
        from medmim.prediction import endpoint_replies
        from medmim.questions.conditions import QUESTION_COLUMNS
        from medmim.tables import table_io
        from medmim.tables.images import ImageStore

        cfg, args = job.cfg, job.args
        endpoint = Endpoint(**cfg["endpoint"])
        questions = table_io.read_table(args.qa, "qa", [*QUESTION_COLUMNS, "source"]).to_pylist()
        image_ids, sources = endpoint_replies.index_images(args.images)
        prompt_settings = {"system": cfg["system"], "max_new_tokens": cfg["max_new_tokens"], "seed": cfg["seed"]}
        try:
            all_requests = endpoint_replies.build_requests(
                questions, cfg["conditions"], endpoint, image_ids=image_ids, **prompt_settings
            )
        except UserError as error:
            raise UserError(f"{args.qa}: {error}") from None
        source_by_question = {q["qa_id"]: q["source"] for q in questions}
        credentialed = endpoint_replies.check_credentialed(
            all_requests, source_by_question, sources, cfg["credentialed"], endpoint, cfg["model"]
        )
        with ReplyStore(args.replies) as store:
            png = ImageStore(args.images).read_png
            failures, sent = send_requests(all_requests, endpoint, store, lambda r: r.build_body(png))
            predictions = endpoint_replies.build_prediction_rows(all_requests, store, failures, cfg["model"])
            reply_account = endpoint_replies.summarise_usage(all_requests, store)
        table_io.write_table(job.out["predictions"], "predictions", predictions)
        job.extra_fields["endpoint"] = {"credentialed": credentialed, "sent": sent, **reply_account}
        n_cut = reply_account["finish_reasons"].get("length", 0)
        summary_parts = [f"{len(predictions)} replies", f"{sent} requests"]
        summary_parts += [f"{n_cut} cut at their longest"] * bool(n_cut) + [f"{len(failures)} could not be asked"] * bool(
            failures
        )
        job.set_summary(f"{cfg['model']}: {', '.join(summary_parts)}")


if __name__ == "__main__":
    main()
