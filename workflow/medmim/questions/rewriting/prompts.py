"""What a writer and a reviewer are asked, and the form of what they reply."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from medmim.config.endpoint import Author
from medmim.questions.prompt import strip_placeholders
from medmim.questions.rewriting.facts import extract_facts, protected_words, referenced_images

Form = Literal["rewrite", "open"]
Messages = list[dict[str, str]]


class Reply(BaseModel):
    """Base of the replies: all fields required, none added, as strict structured output has it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)


class Closed(Reply):
    """A closed question in other words."""

    question: str
    """The question, without its options."""
    options: list[str]
    """As many as were given, in the same order."""


class Open(Reply):
    """An open question and its answer."""

    question: str
    """The question."""
    answer: str
    """Its answer, a sentence."""


class Review(Reply):
    """A reviewer's verdict."""

    sound: bool
    """Whether the new question asks the same, and its answer says the same."""
    reason: str
    """What is wrong, in a sentence; empty if nothing is."""


WRITER_PROMPT = """You write questions that physicians answer by looking at medical images. You do not see the images. {task}

Your text is checked by a program and thrown away unless:
- every word of "keep" is in it, spelt as there, and no medical word, number, side, time or denial is added;
- it refers to the images of "refers_to" and to no others, as "image 2" or "the second image";
- other words are plain everyday ones, of your choice;
- where several images or sides are named, what is said of each stays with it, in the same order;
- the question does not give its answer away;
- each text is a single line, without <image>, letters before options, or markup."""
TASK_PROMPTS = {
    "closed": "Put the question and its options in other words. Keep number and order of the options, reword all of them alike or"
    " none, and change none in meaning. You are not told which one is right.",
    "open": "Put the open question and its answer in other words. They must mean what they meant.",
    "written": "From a closed question, its answer and the facts behind it, write an open question that has the same answer, and"
    " that answer as a sentence of its own. All words of the answer must be in yours; the question's may be in either.",
}
REVIEWER_PROMPT = """\
You review questions that physicians answer by looking at medical images. "before" is right. Say whether "after" is
sound: it asks the same of the same images, each option or answer means what it meant, nothing was added, lost or made easier to
guess, and it is good English. Be strict about meaning, not about style."""


def _describe_facts(text: str, images: int) -> dict[str, Any]:
    refers = [f"image {n}" for n in sorted(referenced_images(extract_facts(text, images)))]
    return {"keep": protected_words(text, images), "refers_to": refers}


def _user_message(content: Mapping[str, Any]) -> dict[str, str]:
    return {"role": "user", "content": json.dumps(content, ensure_ascii=False)}


def reply_form(row: Mapping[str, Any], form: Form) -> type[Closed] | type[Open]:
    """What a writer is to reply."""
    return Closed if form == "rewrite" and row["options"] else Open


def build_writing_messages(
    row: Mapping[str, Any], form: Form, facts: Sequence[str], tries: Sequence[tuple[str, str]]
) -> Messages:
    """Ask for a question. `facts`: its findings in words; `tries`: earlier replies and what was wrong with each.

    Whoever rewrites a closed question is not told its gold, and so can't give it away.
    """
    images, question = len(row["image_ids"]), strip_placeholders(row["question"])
    content: dict[str, Any] = {"images": images, "question": {"text": question, **_describe_facts(question, images)}}
    if form == "open":
        task = "written"
        content |= {"answer": {"text": row["answer"], **_describe_facts(row["answer"], images)}, "facts": list(facts)}
    elif row["options"]:
        task = "closed"
        content["options"] = [{"text": o, **_describe_facts(o, images)} for o in row["options"]]
    else:
        task = "open"
        content["answer"] = {"text": row["answer"], **_describe_facts(row["answer"], images)}
    messages = [{"role": "system", "content": WRITER_PROMPT.format(task=TASK_PROMPTS[task])}, _user_message(content)]
    for reply, reason in tries:
        again = f"That was thrown away: {reason}. Write it again."
        messages += [{"role": "assistant", "content": reply or "(nothing)"}, {"role": "user", "content": again}]
    return messages


def _describe_question(row: Mapping[str, Any]) -> dict[str, Any]:
    options = {"options": list(row["options"])} if row["options"] else {}
    return {"question": strip_placeholders(row["question"]), **options, "answer": row["answer"]}


def build_review_messages(before: Mapping[str, Any], after: Mapping[str, Any], facts: Sequence[str]) -> Messages:
    """Ask whether a question means what the one before does."""
    content = {
        "images": len(before["image_ids"]),
        "before": _describe_question(before),
        "after": _describe_question(after),
        "facts": list(facts),
    }
    return [{"role": "system", "content": REVIEWER_PROMPT}, _user_message(content)]


def build_body(messages: Messages, author: Author, reply: type[Reply], seed: int) -> dict[str, Any]:
    """The request's JSON."""
    schema = {"name": reply.__name__.lower(), "strict": True, "schema": reply.model_json_schema()}
    request_body: dict[str, Any] = {
        "model": author.model,
        "temperature": 0,
        "max_tokens": author.max_tokens,
        "seed": seed,
        "response_format": {"type": "json_schema", "json_schema": schema},
        **author.parameters,
        "messages": messages,
    }
    return {name: value for name, value in request_body.items() if value is not None}
