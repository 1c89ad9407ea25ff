"""Ask a model at an endpoint every question of the benchmark, under every condition. Nothing that was answered is asked again.

cfg: model (its name), endpoint (the section Endpoint), system (message, may be empty), conditions (names), max_new_tokens, seed,
credentialed (sources whose data may only go to an endpoint that says so). The key is read from the environment variable that
endpoint.key_env names, if any.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="qa table")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--replies", type=Path, required=True, help="folder that keeps every reply, for this and later runs")
    arguments.add_argument("--predictions", type=Path, required=True, help="predictions table (written)")
    with Job(arguments, inputs=["qa", "images"], outputs=["predictions"], cached=False) as job:
        from medmim.config.endpoint import Endpoint
        from medmim.endpoints.client import ask
        from medmim.prediction import endpoint_replies
        from medmim.prediction.reply_store import Store
        from medmim.questions.conditions import COLUMNS
        from medmim.tables import table_io
        from medmim.tables.images import ImageStore

        cfg, args = job.cfg, job.args
        endpoint = Endpoint(**cfg["endpoint"])
        questions = table_io.read(args.qa, "qa", [*COLUMNS, "source"]).to_pylist()
        image_ids, sources = endpoint_replies.images(args.images)
        said = {"system": cfg["system"], "max_new_tokens": cfg["max_new_tokens"], "seed": cfg["seed"]}
        try:
            wanted = endpoint_replies.requests(questions, cfg["conditions"], endpoint, image_ids=image_ids, **said)
        except UserError as error:
            raise UserError(f"{args.qa}: {error}") from None
        of_question = {q["qa_id"]: q["source"] for q in questions}
        credentialed = endpoint_replies.check_credentialed(
            wanted, of_question, sources, cfg["credentialed"], endpoint, cfg["model"]
        )
        with Store(args.replies) as store:
            png = ImageStore(args.images).png
            failures, sent = ask(wanted, endpoint, store, lambda r: r.body(png))
            found = endpoint_replies.rows(wanted, store, failures, cfg["model"])
            account = endpoint_replies.account(wanted, store)
        table_io.write(job.out["predictions"], "predictions", found)
        job.extra["endpoint"] = {"credentialed": credentialed, "sent": sent, **account}
        cut = account["finish_reasons"].get("length", 0)
        told = [f"{len(found)} replies", f"{sent} requests"]
        told += [f"{cut} cut at their longest"] * bool(cut) + [f"{len(failures)} could not be asked"] * bool(failures)
        job.done(f"{cfg['model']}: {', '.join(told)}")


if __name__ == "__main__":
    main()
