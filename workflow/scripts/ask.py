"""Ask a model at an endpoint every question of the benchmark, under every condition. Nothing that was answered is asked again.

cfg: model (its name), endpoint (the section Endpoint), system (message, may be empty), conditions (names), max_new_tokens, seed,
credentialed (sources whose data may only go to an endpoint that says so). The key is read from the environment variable that
endpoint.key_env names, if any.
"""

from pathlib import Path

from medmim.job import Job, UserError, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--qa", type=Path, required=True, help="qa table")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--replies", type=Path, required=True, help="folder that keeps every reply, for this and later runs")
    arguments.add_argument("--predictions", type=Path, required=True, help="predictions table (written)")
    with Job(arguments, inputs=["qa", "images"], outputs=["predictions"], cached=False) as job:
        from medmim import tables
        from medmim.endpoint.client import ask
        from medmim.endpoint.settings import Endpoint
        from medmim.images import ImageStore
        from medmim.predict import request
        from medmim.predict.store import Store
        from medmim.qa.conditions import COLUMNS

        cfg, args = job.cfg, job.args
        endpoint = Endpoint(**cfg["endpoint"])
        questions = tables.read(args.qa, "qa", [*COLUMNS, "source"]).to_pylist()
        image_ids, sources = request.images(args.images)
        said = {"system": cfg["system"], "max_new_tokens": cfg["max_new_tokens"], "seed": cfg["seed"]}
        try:
            wanted = request.requests(questions, cfg["conditions"], endpoint, image_ids=image_ids, **said)
        except UserError as error:
            raise UserError(f"{args.qa}: {error}") from None
        of_question = {q["qa_id"]: q["source"] for q in questions}
        credentialed = request.check_credentialed(wanted, of_question, sources, cfg["credentialed"], endpoint, cfg["model"])
        with Store(args.replies) as store:
            png = ImageStore(args.images).png
            failures, sent = ask(wanted, endpoint, store, lambda r: r.body(png))
            found = request.rows(wanted, store, failures, cfg["model"])
            account = request.account(wanted, store)
        tables.write(job.out["predictions"], "predictions", found)
        job.extra["endpoint"] = {"credentialed": credentialed, "sent": sent, **account}
        cut = account["finish_reasons"].get("length", 0)
        told = [f"{len(found)} replies", f"{sent} requests"]
        told += [f"{cut} cut at their longest"] * bool(cut) + [f"{len(failures)} could not be asked"] * bool(failures)
        job.done(f"{cfg['model']}: {', '.join(told)}")


if __name__ == "__main__":
    main()
