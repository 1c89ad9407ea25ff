"""Ask one model every question of the benchmark under one condition: greedy replies, and the letters' log-likelihoods.

cfg: family (llava-med, mantis or chat), model (its name), condition (plain, or blind: no image), system (message, may be
empty), batch (questions), max_new_tokens, precision (fp32 or bf16), gpus (0: CPU, or 1), threads.
"""

from pathlib import Path
from typing import Any

from medmim import gpus
from medmim.job import Job, UserError, parser
from medmim.models import MODULE

COLUMNS = ["qa_id", "question", "options", "image_ids"]


def machine(cfg: dict[str, Any]) -> None:
    if cfg["gpus"] > 1:
        raise UserError(f"gpus: {cfg['gpus']}: one program predicts on one GPU; run models or conditions side by side")
    gpus.require(cfg["gpus"])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="files.parquet of the model's folder")
    arguments.add_argument("--adapter", type=Path, help="files.parquet of a PEFT adapter's folder, to load upon the model")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--predictions", type=Path, required=True, help="predictions table (written)")
    inputs = ["model", "adapter", "qa", "images"]
    with Job(arguments, inputs=inputs, outputs=["predictions"], modules=[MODULE], before=machine) as job:
        from medmim import tables
        from medmim.images import ImageStore
        from medmim.models.prompter import prompter
        from medmim.models.weights import device, load
        from medmim.predict import replies

        cfg, args = job.cfg, job.args
        where = device(cfg["gpus"], cfg["threads"])
        questions = tables.read(args.qa, "qa", COLUMNS).to_pylist()
        store = ImageStore(args.images)
        try:
            asker = prompter(cfg["family"], args.model.parent, store.image)
        except ValueError as error:
            raise UserError(f"{args.model.parent}: {error}") from error
        asked = replies.prompts(questions, asker, condition=cfg["condition"], system=cfg["system"])
        if absent := [(q["qa_id"], i) for q, p in zip(questions, asked, strict=True) for i in p.images if i not in store]:
            raise UserError(f"{args.qa}: question {absent[0][0]} shows {absent[0][1]}, which is in none of the images tables")
        adapter = args.adapter.parent if args.adapter else None
        model = load(args.model.parent, family=cfg["family"], precision=cfg["precision"], adapter=adapter).to(where)
        options = [len(q["options"]) for q in questions]
        sizes = {"batch": cfg["batch"], "max_new_tokens": cfg["max_new_tokens"]}
        given = replies.replies(model, asker, asked, options, **sizes)
        found = replies.rows(questions, asked, given, model=cfg["model"], condition=cfg["condition"])
        tables.write(job.out["predictions"], "predictions", found)
        job.done(f"{cfg['model']}, {cfg['condition']}: {len(found)} replies")


if __name__ == "__main__":
    main()
