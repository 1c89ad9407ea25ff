"""Questions are written, checked and reviewed in waves, each as large as the budget surely allows.

What a wave asks follows from the replies before it alone, not from when they came: the same questions and the same kept replies
give the same result, and a run that was stopped goes on as if it had not been.
"""

import hashlib
import json
import logging
import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from medmim.config.endpoint import Author
from medmim.config.question_writer import Writer
from medmim.endpoints.batch import Batching
from medmim.endpoints.client import Asking, ask, reply_key
from medmim.endpoints.reply_store import Replies
from medmim.questions.rewriting import checks, prompts
from medmim.questions.rewriting.facts import line
from medmim.questions.rewriting.prompts import Closed, Form, Open, Review
from medmim.questions.row import Row, question_row

log = logging.getLogger("medmim")
GENERATOR = "writer/1"
TOLD = 600
"""Most characters of a reason."""


@dataclass(frozen=True)
class Request:
    """One request of a writer or a reviewer."""

    name: str
    body: dict[str, Any]
    key: str

    @property
    def most_prompt_tokens(self) -> int:
        """A token is a byte at least, the text of messages and schema being bytes of the request."""
        return len(json.dumps(self.body, ensure_ascii=False).encode())


@dataclass
class Task:
    """A question to be written."""

    row: Row
    form: Form
    facts: list[str]
    tries: list[tuple[str, str]] = field(default_factory=list)
    """Replies, and what was wrong with each."""
    done: Row | None = None
    hopeless: bool = False
    """The service can't be asked it."""


@dataclass
class Budget:
    """Tokens and US dollars that there are, and what of them is spent."""

    tokens: int
    usd: float
    spent_tokens: int = 0
    spent_usd: float = 0.0

    def spend(self, tokens: int, usd: float) -> None:
        """Count a reply."""
        self.spent_tokens += tokens
        self.spent_usd += usd

    def allows(self, tokens: int, usd: float) -> bool:
        """Whether so much more can be spent."""
        return self.spent_tokens + tokens <= self.tokens and self.spent_usd + usd <= self.usd + 1e-12


@dataclass
class Written:
    """The questions with what was written among them, a row of the writing table for each reply, and counts."""

    rows: list[Row]
    replies: list[dict[str, Any]]
    counts: dict[str, int]
    """rewritten, added; left as they were: rejected, unasked (for want of budget)."""
    budget: Budget
    sent: int
    """Requests that were sent now, the others having been answered before."""


def _lot(seed: int, *names: str) -> bytes:
    return hashlib.sha256("|".join((str(seed), *names)).encode()).digest()


def chosen(rows: Iterable[Row], findings: Mapping[str, str], writer: Writer, seed: int) -> list[Task]:
    """What is to be written, in an order drawn from the seed; more as the shares grow, the same first.

    `findings`: each in words, by its id.
    """
    drawn: list[tuple[bytes, Task]] = []
    for row in (r for r in rows if r["split"] in writer.splits):
        facts = [findings[i] for i in row["findings"] if i in findings]
        shares: dict[Form, float] = {"rewrite": writer.rewrite, "open": writer.open if row["options"] else 0}
        for form, share in shares.items():
            lot = _lot(seed, form, row["qa_id"])
            if int.from_bytes(lot[:8], "big") < share * 2**64:
                drawn.append((lot, Task(row, form, facts)))
    return [task for _, task in sorted(drawn, key=lambda d: d[0])]


def worded(findings: Iterable[Mapping[str, Any]], images: Collection[str]) -> dict[str, str]:
    """Findings in words, by id; without those that name one of the images."""
    return {f["finding_id"]: re.sub(r"[_:]", " ", f["name"]) + f": {f['value']}" for f in findings if f["value"] not in images}


class Session:
    """One source's questions on their way."""

    def __init__(self, rows: Sequence[Row], writer: Writer, seed: int, replies: Replies, parts: int) -> None:
        self.writer, self.seed, self.replies = writer, seed, replies
        self.budget = Budget(writer.budget_tokens // parts, writer.budget_usd / parts)
        self.ids = {r["qa_id"] for r in rows}
        self.told: list[dict[str, Any]] = []
        self.sent = 0

    def request(self, task: Task, author: Author, messages: prompts.Messages, reply: type[prompts.Reply]) -> Request:
        """What is sent."""
        body = prompts.body(messages, author, reply, self.seed)
        return Request(f"{task.form} of question {task.row['qa_id']}", body, reply_key(author.url, body))

    def generation(self, task: Task) -> Request:
        """The request that has a task's question written."""
        messages = prompts.writing(task.row, task.form, task.facts, task.tries)
        return self.request(task, self.writer.generator, messages, prompts.reply_form(task.row, task.form))

    def most(self, task: Task, request: Request) -> tuple[int, float]:
        """Tokens and US dollars that a try costs at most, its review included."""
        author = self.writer.generator
        prompt = request.most_prompt_tokens
        tokens, usd = prompt + author.longest, author.usd(prompt, author.longest)
        if (reviewer := self.writer.reviewer) is not None:
            row = task.row
            review = self.request(task, reviewer, prompts.review(row, row, task.facts), Review)
            texts = (row["question"], row["answer"], row["question"] + row["answer"], *row["options"])
            prompt = review.most_prompt_tokens + 2 * sum(checks.longest(t) for t in texts)  # what is written may be as long
            tokens, usd = tokens + prompt + reviewer.longest, usd + reviewer.usd(prompt, reviewer.longest)
        return tokens, usd

    def send(self, author: Author, requests: Sequence[Request]) -> None:
        """Have all requests answered; what can't be asked is noted in place of its reply."""
        way = Batching if author.batch else Asking
        failures, sent = ask(requests, author, self.replies, lambda r: r.body, way)
        self.sent += sent
        for key, why in failures.items():
            self.replies.put(key, {"failure": why})

    def take(self, task: Task, role: str, author: Author, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
        """The reply to a request, and its row of the table, which is paid for."""
        reply = self.replies.get(request.key)
        prompt = completion = 0
        if "failure" not in reply:
            counted = [reply["usage"].get(f"{kind}_tokens") for kind in ("prompt", "completion")]
            prompt = counted[0] if isinstance(counted[0], int) else request.most_prompt_tokens
            completion = counted[1] if isinstance(counted[1], int) else author.longest
        usd = author.usd(prompt, completion)
        self.budget.spend(prompt + completion, usd)
        told = {
            "template": task.row["qa_id"],
            "form": task.form,
            "attempt": len(task.tries) + 1,
            "role": role,
            "request": request.key,
            "model": line(str(reply.get("model") or "")),
            "finish_reason": line(str(reply.get("finish_reason") or "")),
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "usd": usd,
            "outcome": "accepted",
            "reason": "",
            "qa_id": "",
        }
        self.told.append(told)
        return reply, told

    def reject(self, task: Task, told: dict[str, Any], reasons: Sequence[str], reply: Mapping[str, Any], given: str) -> None:
        """Note why a try came to nothing."""
        reason = "; ".join(reasons)[:TOLD]
        told |= {"outcome": "rejected", "reason": reason}
        task.hopeless = "failure" in reply
        task.tries.append((given, reason))

    def wave(self, tasks: Sequence[Task], requests: Sequence[Request]) -> None:
        """One try of each question."""
        writer = self.writer
        self.send(writer.generator, requests)
        drafts: list[tuple[Task, Row, dict[str, Any], str]] = []
        for task, request in zip(tasks, requests, strict=True):
            reply, told = self.take(task, "generator", writer.generator, request)
            model = told["model"] or writer.generator.model
            row, reasons = draft(reply, task, model)
            if row is not None and not reasons and row["qa_id"] in self.ids:
                reasons = ["there is such a question already"]
            given = str(reply.get("content") or "")
            if row is None or reasons:
                self.reject(task, told, reasons, reply, given)
            else:
                drafts.append((task, row, told, given))
                self.ids.add(row["qa_id"])
        if writer.reviewer is not None:
            asked = [self.request(t, writer.reviewer, prompts.review(t.row, row, t.facts), Review) for t, row, *_ in drafts]
            self.send(writer.reviewer, asked)
            reviewed = list(zip(drafts, asked, strict=True))
            drafts = []
            for (task, row, told, given), request in reviewed:
                reply, verdict = self.take(task, "reviewer", writer.reviewer, request)
                found, reasons = read(reply, Review)
                if isinstance(found, Review) and not found.sound:
                    reasons = [f"the reviewer: {line(found.reason) or 'not the same'}"]
                elif reasons:
                    reasons = [f"the reviewer's reply: {r}" for r in reasons]
                if reasons:
                    verdict |= {"outcome": "rejected", "reason": "; ".join(reasons)[:TOLD]}
                    self.reject(task, told, reasons, reply, given)
                    self.ids.discard(row["qa_id"])
                else:
                    verdict["qa_id"] = row["qa_id"]
                    drafts.append((task, row, told, given))
        for task, row, told, _ in drafts:
            told["qa_id"] = row["qa_id"]
            task.done = row

    def run(self, tasks: Sequence[Task]) -> None:
        """Write as many as the budget allows, and try again what was rejected."""
        queue = deque(tasks)
        while queue:
            wave: list[Task] = []
            requests: list[Request] = []
            tokens, usd = 0, 0.0
            while queue:
                request = self.generation(queue[0])
                more_tokens, more_usd = self.most(queue[0], request)
                if not self.budget.allows(tokens + more_tokens, usd + more_usd):
                    break
                wave.append(queue.popleft())
                requests.append(request)
                tokens, usd = tokens + more_tokens, usd + more_usd
            if not wave:
                return
            self.wave(wave, requests)
            queue += [t for t in wave if t.done is None and not t.hopeless and len(t.tries) < self.writer.tries]


def read(reply: Mapping[str, Any], form: type[prompts.Reply]) -> tuple[prompts.Reply | None, list[str]]:
    """What a reply says in the form asked for, or why it can't be used."""
    if why := reply.get("failure"):
        return None, [str(why)]
    if reply["refusal"]:
        return None, [f"refused: {line(reply['refusal'])}"]
    if reply["finish_reason"] == "length":
        return None, ["cut off at its longest"]
    if reply["finish_reason"] == "content_filter":
        return None, ["held back by the service's filter"]
    if not (reply["content"] or "").strip():
        return None, ["empty"]
    try:
        return form.model_validate_json(reply["content"]), []
    except ValidationError as error:
        told = [f"{'.'.join(map(str, e['loc'])) or 'the reply'}: {e['msg']}" for e in error.errors(include_input=False)]
        return None, [f"not in the form asked for: {'; '.join(told)}"]


def draft(reply: Mapping[str, Any], task: Task, model: str) -> tuple[Row | None, list[str]]:
    """The question that a reply makes of a task's, or what is wrong with it."""
    row = task.row
    said, reasons = read(reply, prompts.reply_form(row, task.form))
    options: list[str] = []
    if isinstance(said, Closed):
        reasons = checks.rewritten_question(said.question, row) + checks.options(
            said.options, row["options"], len(row["image_ids"])
        )
        options = [line(o) for o in said.options]
        answer = options[row["answer_index"]] if len(options) == len(row["options"]) else ""
    elif isinstance(said, Open):
        if task.form == "open":
            reasons = checks.opened(said.question, said.answer, row, task.facts)
        else:
            reasons = checks.rewritten_question(said.question, row) + checks.rewritten_answer(said.answer, row)
        answer = line(said.answer)
    if not isinstance(said, Closed | Open) or reasons:
        return None, reasons
    made = question_row(
        **{k: row[k] for k in ("split", "ability", "set", "image_ids", "patient_ids", "source", "findings")},
        task=row["task"] if task.form == "rewrite" else f"{row['task']}_open",
        text=line(said.question),
        options=options,
        answer=answer,
        answer_index=row["answer_index"] if options else None,
        generator=f"{GENERATOR} {model}",
    )
    return made, checks.made(made, row)


def write(
    rows: Sequence[Row],
    findings: Iterable[Mapping[str, Any]],
    *,
    writer: Writer,
    seed: int,
    replies: Replies,
    parts: int = 1,
) -> Written:
    """The questions of a source, some of them written by a model; an open one that is added follows its closed one.

    `parts`: sources that the budget is shared by. What could not be written stays as it is. Raises UserError where a service
    can't be asked, Interrupted by a signal; every reply that came by then is kept.
    """
    images = {i for r in rows for i in r["image_ids"]}
    tasks = chosen(rows, worded(findings, images), writer, seed)
    session = Session(rows, writer, seed, replies, parts)
    session.run(tasks)
    done = {(t.row["qa_id"], t.form): t.done for t in tasks if t.done is not None}
    found: list[Row] = []
    for row in rows:
        found.append(done.get((row["qa_id"], "rewrite")) or row)
        if added := done.get((row["qa_id"], "open")):
            found.append(added)
    left = [t for t in tasks if t.done is None]
    counts = {
        "rewritten": sum(form == "rewrite" for _, form in done),
        "added": sum(form == "open" for _, form in done),
        "rejected": sum(bool(t.tries) for t in left),
        "unasked": sum(not t.tries for t in left),
    }
    return Written(found, session.told, counts, session.budget, session.sent)
