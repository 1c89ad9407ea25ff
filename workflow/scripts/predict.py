"""Ask one model every question of the benchmark under every condition: greedy replies, and how likely it finds each option.

Replies are kept in the folder --replies as they come, by the hash of all that they depend on: a run that was stopped goes on
where it was, and a condition or question more asks for what is new.

cfg: family (one of medmim.models.families, or chat), model (its name), conditions (see medmim.questions.conditions),
text_likelihood (of the options' lines too, where asked plainly), system (message, may be empty), chat and thinking (of the
model's config), batch (questions at most), max_new_tokens, precision (fp32 or bf16), gpus (0: CPU, or 1), threads.
"""

from collections.abc import Container
from pathlib import Path
from typing import Any

from medmim.common import gpus
from medmim.common.errors import UserError, explain_library_errors
from medmim.models.families.registry import FAMILY_MODULE
from medmim.provenance.job import Job, build_parser


def check_gpus(cfg: dict[str, Any]) -> None:
    if cfg["gpus"] > 1:
        raise UserError(f"gpus: {cfg['gpus']}: one program predicts on one GPU; run models side by side")
    gpus.require_gpus(cfg["gpus"])


def find_references(path: Path, questions: list[dict[str, Any]], images: Container[str]) -> list[str]:
    """References of all images that the questions show, each once. Raises UserError for one that is in no table."""
    question_by_image = {i: question["qa_id"] for question in questions for i in question["image_ids"]}
    for reference, name in question_by_image.items():
        if reference not in images:
            raise UserError(f"{path}: question {name} shows {reference}, which is in none of the images tables")
    return list(question_by_image)


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="files.parquet of the model's folder")
    arguments.add_argument("--adapter", type=Path, help="files.parquet of a PEFT adapter's folder, to load upon the model")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--replies", type=Path, required=True, help="folder of the replies so far (added to)")
    arguments.add_argument("--predictions", type=Path, required=True, help="predictions table (written)")
    inputs = ["model", "adapter", "qa", "images"]
    with Job(arguments, inputs=inputs, outputs=["predictions"], modules=[FAMILY_MODULE], preflight=check_gpus) as job:
        from medmim.endpoints.reply_store import ReplyStore
        from medmim.models.prompting import load_prompter
        from medmim.models.weights import load_model, prepare_device
        from medmim.prediction import local_replies
        from medmim.questions import conditions
        from medmim.tables import table_io
        from medmim.tables.images import ImageStore

        cfg, args = job.cfg, job.args
        target_device = prepare_device(cfg["gpus"], cfg["threads"])
        qa = table_io.read_table(args.qa, "qa", list(conditions.QUESTION_COLUMNS)).to_pylist()
        images = ImageStore(args.images)
        references = find_references(args.qa, qa, images)
        asker = load_prompter(cfg["family"], args.model.parent, images.read_image, chat=cfg["chat"], thinking=cfg["thinking"])
        with explain_library_errors(str(args.model.parent)):
            asker.encode_letters(max((len(question["options"]) for question in qa), default=0))
        job.extra_fields["processor"] = asker.processor

        contents = {i: images.resolve_image_id(i) for i in references}
        weights = {name: [entry["sha256"] for entry in job.input_records[name]] for name in ("model", "adapter")}
        settings = {name: cfg[name] for name in ("family", "max_new_tokens", "precision", "thinking", "gpus", "threads")}
        basis = [weights, settings, asker.processor, job.code.get("sha256")]
        questions_by_condition = {
            condition: local_replies.prepare_questions(
                conditions.apply_condition(qa, condition),
                asker,
                system=cfg["system"],
                wants_lines=cfg["text_likelihood"] and condition == "plain",
                images=contents,
                basis=basis,
            )
            for condition in conditions.CONDITIONS
            if condition in cfg["conditions"]
        }
        batches = [b for asked in questions_by_condition.values() for b in local_replies.make_batches(asked, cfg["batch"])]
        with ReplyStore(args.replies) as reply_store:
            new_batches = [batch for batch in batches if local_replies.batch_key(batch) not in reply_store]
            if new_batches:
                adapter = args.adapter.parent if args.adapter else None
                model = load_model(args.model.parent, family=cfg["family"], precision=cfg["precision"], adapter=adapter)
                local_replies.ask_batches(
                    model.to(target_device), asker, new_batches, reply_store, max_new_tokens=cfg["max_new_tokens"]
                )
            stored_replies = local_replies.load_replies(batches, reply_store)
        rows = [
            row
            for c, one in questions_by_condition.items()
            for row in local_replies.build_prediction_rows(one, stored_replies, model=cfg["model"], condition=c)
        ]
        table_io.write_table(job.out["predictions"], "predictions", rows)
        thinking_cut = sum(stored_replies[one.key].thinking_cut for asked in questions_by_condition.values() for one in asked)
        n_failed, n_asked = sum(bool(row["failure"]) for row in rows), sum(map(len, new_batches))
        summary_parts = [f"{n_asked} asked now", *([f"{n_failed} could not be asked"] if n_failed else [])]
        if cfg["thinking"]:
            job.extra_fields["thinking_cut"] = thinking_cut
            summary_parts.append(f"{thinking_cut} while it still thought")
        job.set_summary(
            f"{cfg['model']}: {len(rows)} replies under {len(questions_by_condition)} conditions, {', '.join(summary_parts)}"
        )


if __name__ == "__main__":
    main()
