"""Ask one model every question of the benchmark under every condition: greedy replies, and how likely it finds each option.

Replies are kept in the folder --replies as they come, by the hash of all that they depend on: a run that was stopped goes on
where it was, and a condition or question more asks for what is new.

cfg: family (llava-med, mantis or chat), model (its name), conditions (see medmim.questions.conditions), text_likelihood (of
the options'
lines too, where asked plainly), system (message, may be empty), batch (questions at most), max_new_tokens, precision (fp32 or
bf16), gpus (0: CPU, or 1), threads.
"""

from pathlib import Path
from typing import Any

from medmim.common import gpus
from medmim.common.errors import UserError
from medmim.models.families.registry import MODULE
from medmim.provenance.job import Job, parser


def machine(cfg: dict[str, Any]) -> None:
    if cfg["gpus"] > 1:
        raise UserError(f"gpus: {cfg['gpus']}: one program predicts on one GPU; run models side by side")
    gpus.require(cfg["gpus"])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="files.parquet of the model's folder")
    arguments.add_argument("--adapter", type=Path, help="files.parquet of a PEFT adapter's folder, to load upon the model")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--replies", type=Path, required=True, help="folder of the replies so far (added to)")
    arguments.add_argument("--predictions", type=Path, required=True, help="predictions table (written)")
    inputs = ["model", "adapter", "qa", "images"]
    with Job(arguments, inputs=inputs, outputs=["predictions"], modules=[MODULE], before=machine) as job:
        from medmim.models.prompting import prompter
        from medmim.models.weights import device, load
        from medmim.prediction import local_replies
        from medmim.prediction.reply_store import Store
        from medmim.questions import conditions
        from medmim.tables import table_io
        from medmim.tables.images import ImageStore

        cfg, args = job.cfg, job.args
        where = device(cfg["gpus"], cfg["threads"])
        qa = table_io.read(args.qa, "qa", list(conditions.COLUMNS)).to_pylist()
        images = ImageStore(args.images)
        shown = {i: question["qa_id"] for question in qa for i in question["image_ids"]}
        for reference, name in shown.items():
            if reference not in images:
                raise UserError(f"{args.qa}: question {name} shows {reference}, which is in none of the images tables")
        try:
            asker = prompter(cfg["family"], args.model.parent, images.image)
            asker.letters(max((len(question["options"]) for question in qa), default=0))
        except (ValueError, OSError) as error:
            raise UserError(f"{args.model.parent}: {error}") from error
        job.extra["processor"] = asker.processor

        contents = {i: images.content(i) for i in shown}
        weights = {name: [entry["sha256"] for entry in job.inputs[name]] for name in ("model", "adapter")}
        settings = {name: cfg[name] for name in ("family", "max_new_tokens", "precision", "gpus", "threads")}
        basis = [weights, settings, asker.processor, job.code.get("sha256")]
        asked = {
            condition: local_replies.questions(
                conditions.asked(qa, condition),
                asker,
                system=cfg["system"],
                lines=cfg["text_likelihood"] and condition == "plain",
                images=contents,
                basis=basis,
            )
            for condition in conditions.CONDITIONS
            if condition in cfg["conditions"]
        }
        batches = [batch for one in asked.values() for batch in local_replies.batches(one, cfg["batch"])]
        with Store(args.replies) as kept:
            new = [batch for batch in batches if local_replies.batch_key(batch) not in kept]
            if new:
                adapter = args.adapter.parent if args.adapter else None
                model = load(args.model.parent, family=cfg["family"], precision=cfg["precision"], adapter=adapter)
                local_replies.ask_new(model.to(where), asker, new, kept, max_new_tokens=cfg["max_new_tokens"])
            given = local_replies.stored(batches, kept)
        rows = [row for c, one in asked.items() for row in local_replies.rows(one, given, model=cfg["model"], condition=c)]
        table_io.write(job.out["predictions"], "predictions", rows)
        failed, fresh = sum(bool(row["failure"]) for row in rows), sum(map(len, new))
        told = [f"{fresh} asked now", *([f"{failed} could not be asked"] if failed else [])]
        job.done(f"{cfg['model']}: {len(rows)} replies under {len(asked)} conditions, {', '.join(told)}")


if __name__ == "__main__":
    main()
