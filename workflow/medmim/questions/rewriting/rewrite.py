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
from medmim.endpoints.batch import BatchRunner
from medmim.endpoints.client import RequestRunner, reply_key, send_requests
from medmim.endpoints.reply_store import ReplyStore
from medmim.questions.rewriting import checks, prompts
from medmim.questions.rewriting.facts import normalize_line
from medmim.questions.rewriting.prompts import Closed, Form, Open, Review
from medmim.questions.row import Row, question_row

log = logging.getLogger("medmim")
GENERATOR = "writer/1"
MAX_REASON_CHARS = 600
"""Most characters of a reason."""


@dataclass(frozen=True)
class Request:
    """One request of a writer or a reviewer."""

    name: str
    body: dict[str, Any]
    key: str

    @property
    def max_prompt_tokens(self) -> int:
        """A token is a byte at least, the text of messages and schema being bytes of the request."""
        return len(json.dumps(self.body, ensure_ascii=False).encode())


@dataclass
class WritingTask:
    """A question to be written."""

    row: Row
    form: Form
    facts: list[str]
    tries: list[tuple[str, str]] = field(default_factory=list)
    """Replies, and what was wrong with each."""
    written_row: Row | None = None
    is_hopeless: bool = False
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
class WritingResult:
    """The questions with what was written among them, a row of the writing table for each reply, and counts."""

    rows: list[Row]
    replies: list[dict[str, Any]]
    counts: dict[str, int]
    """rewritten, added; left as they were: rejected, unasked (for want of budget)."""
    budget: Budget
    sent: int
    """Requests that were sent now, the others having been answered before."""


def _lot_hash(seed: int, *names: str) -> bytes:
    return hashlib.sha256("|".join((str(seed), *names)).encode()).digest()


def draw_tasks(rows: Iterable[Row], findings: Mapping[str, str], writer: Writer, seed: int) -> list[WritingTask]:
    """What is to be written, in an order drawn from the seed; more as the shares grow, the same first.

    `findings`: each in words, by its id.
    """
    drawn: list[tuple[bytes, WritingTask]] = []
    for row in (r for r in rows if r["split"] in writer.splits):
        facts = [findings[i] for i in row["findings"] if i in findings]
        shares: dict[Form, float] = {"rewrite": writer.rewrite, "open": writer.open if row["options"] else 0}
        for form, share in shares.items():
            lot = _lot_hash(seed, form, row["qa_id"])
            if int.from_bytes(lot[:8], "big") < share * 2**64:
                drawn.append((lot, WritingTask(row, form, facts)))
    return [task for _, task in sorted(drawn, key=lambda d: d[0])]


def describe_findings(findings: Iterable[Mapping[str, Any]], images: Collection[str]) -> dict[str, str]:
    """Findings in words, by id; without those that name one of the images."""
    return {f["finding_id"]: re.sub(r"[_:]", " ", f["name"]) + f": {f['value']}" for f in findings if f["value"] not in images}


class WritingSession:
    """One source's questions on their way."""

    def __init__(self, rows: Sequence[Row], writer: Writer, seed: int, replies: ReplyStore, parts: int) -> None:
        self.writer, self.seed, self.replies = writer, seed, replies
        self.budget = Budget(writer.budget_tokens // parts, writer.budget_usd / parts)
        self.qa_ids = {r["qa_id"] for r in rows}
        self.reply_rows: list[dict[str, Any]] = []
        self.sent = 0

    def build_request(self, task: WritingTask, author: Author, messages: prompts.Messages, reply: type[prompts.Reply]) -> Request:
        """What is sent."""
        body = prompts.build_body(messages, author, reply, self.seed)
        return Request(f"{task.form} of question {task.row['qa_id']}", body, reply_key(author.url, body))

    def generation_request(self, task: WritingTask) -> Request:
        """The request that has a task's question written."""
        messages = prompts.build_writing_messages(task.row, task.form, task.facts, task.tries)
        return self.build_request(task, self.writer.generator, messages, prompts.reply_form(task.row, task.form))

    def max_cost(self, task: WritingTask, request: Request) -> tuple[int, float]:
        """Tokens and US dollars that a try costs at most, its review included."""
        author = self.writer.generator
        prompt = request.max_prompt_tokens
        tokens, usd = prompt + author.max_reply_tokens, author.cost_usd(prompt, author.max_reply_tokens)
        if (reviewer := self.writer.reviewer) is not None:
            row = task.row
            review = self.build_request(task, reviewer, prompts.build_review_messages(row, row, task.facts), Review)
            texts = (row["question"], row["answer"], row["question"] + row["answer"], *row["options"])
            prompt = review.max_prompt_tokens + 2 * sum(checks.max_text_bytes(t) for t in texts)  # what is written may be as long
            tokens, usd = tokens + prompt + reviewer.max_reply_tokens, usd + reviewer.cost_usd(prompt, reviewer.max_reply_tokens)
        return tokens, usd

    def answer_requests(self, author: Author, requests: Sequence[Request]) -> None:
        """Have all requests answered; what can't be asked is noted in place of its reply."""
        runner_class = BatchRunner if author.batch else RequestRunner
        failures, sent = send_requests(requests, author, self.replies, lambda r: r.body, runner_class)
        self.sent += sent
        for key, reason in failures.items():
            self.replies.put(key, {"failure": reason})

    def take_reply(self, task: WritingTask, role: str, author: Author, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
        """The reply to a request, and its row of the table, which is paid for."""
        reply = self.replies.get(request.key)
        prompt = completion = 0
        if "failure" not in reply:
            token_counts = [reply["usage"].get(f"{kind}_tokens") for kind in ("prompt", "completion")]
            prompt = token_counts[0] if isinstance(token_counts[0], int) else request.max_prompt_tokens
            completion = token_counts[1] if isinstance(token_counts[1], int) else author.max_reply_tokens
        usd = author.cost_usd(prompt, completion)
        self.budget.spend(prompt + completion, usd)
        reply_row = {
            "template": task.row["qa_id"],
            "form": task.form,
            "attempt": len(task.tries) + 1,
            "role": role,
            "request": request.key,
            "model": normalize_line(str(reply.get("model") or "")),
            "finish_reason": normalize_line(str(reply.get("finish_reason") or "")),
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "usd": usd,
            "outcome": "accepted",
            "reason": "",
            "qa_id": "",
        }
        self.reply_rows.append(reply_row)
        return reply, reply_row

    def reject_try(
        self, task: WritingTask, reply_row: dict[str, Any], reasons: Sequence[str], reply: Mapping[str, Any], content: str
    ) -> None:
        """Note why a try came to nothing."""
        reason = "; ".join(reasons)[:MAX_REASON_CHARS]
        reply_row |= {"outcome": "rejected", "reason": reason}
        task.is_hopeless = "failure" in reply
        task.tries.append((content, reason))

    def run_wave(self, tasks: Sequence[WritingTask], requests: Sequence[Request]) -> None:
        """One try of each question."""
        writer = self.writer
        self.answer_requests(writer.generator, requests)
        drafts: list[tuple[WritingTask, Row, dict[str, Any], str]] = []
        for task, request in zip(tasks, requests, strict=True):
            reply, reply_row = self.take_reply(task, "generator", writer.generator, request)
            model = reply_row["model"] or writer.generator.model
            row, reasons = draft_row(reply, task, model)
            if row is not None and not reasons and row["qa_id"] in self.qa_ids:
                reasons = ["there is such a question already"]
            content = str(reply.get("content") or "")
            if row is None or reasons:
                self.reject_try(task, reply_row, reasons, reply, content)
            else:
                drafts.append((task, row, reply_row, content))
                self.qa_ids.add(row["qa_id"])
        if writer.reviewer is not None:
            review_requests = [
                self.build_request(t, writer.reviewer, prompts.build_review_messages(t.row, row, t.facts), Review)
                for t, row, *_ in drafts
            ]
            self.answer_requests(writer.reviewer, review_requests)
            reviewed = list(zip(drafts, review_requests, strict=True))
            drafts = []
            for (task, row, reply_row, content), request in reviewed:
                reply, verdict = self.take_reply(task, "reviewer", writer.reviewer, request)
                review, reasons = parse_content(reply, Review)
                if isinstance(review, Review) and not review.sound:
                    reasons = [f"the reviewer: {normalize_line(review.reason) or 'not the same'}"]
                elif reasons:
                    reasons = [f"the reviewer's reply: {r}" for r in reasons]
                if reasons:
                    verdict |= {"outcome": "rejected", "reason": "; ".join(reasons)[:MAX_REASON_CHARS]}
                    self.reject_try(task, reply_row, reasons, reply, content)
                    self.qa_ids.discard(row["qa_id"])
                else:
                    verdict["qa_id"] = row["qa_id"]
                    drafts.append((task, row, reply_row, content))
        for task, row, reply_row, _ in drafts:
            reply_row["qa_id"] = row["qa_id"]
            task.written_row = row

    def run(self, tasks: Sequence[WritingTask]) -> None:
        """Write as many as the budget allows, and try again what was rejected."""
        queue = deque(tasks)
        while queue:
            wave: list[WritingTask] = []
            requests: list[Request] = []
            tokens, usd = 0, 0.0
            while queue:
                request = self.generation_request(queue[0])
                more_tokens, more_usd = self.max_cost(queue[0], request)
                if not self.budget.allows(tokens + more_tokens, usd + more_usd):
                    break
                wave.append(queue.popleft())
                requests.append(request)
                tokens, usd = tokens + more_tokens, usd + more_usd
            if not wave:
                return
            self.run_wave(wave, requests)
            queue += [t for t in wave if t.written_row is None and not t.is_hopeless and len(t.tries) < self.writer.tries]


def parse_content(reply: Mapping[str, Any], form: type[prompts.Reply]) -> tuple[prompts.Reply | None, list[str]]:
    """What a reply says in the form asked for, or why it can't be used."""
    if failure := reply.get("failure"):
        return None, [str(failure)]
    if reply["refusal"]:
        return None, [f"refused: {normalize_line(reply['refusal'])}"]
    if reply["finish_reason"] == "length":
        return None, ["cut off at its longest"]
    if reply["finish_reason"] == "content_filter":
        return None, ["held back by the service's filter"]
    if not (reply["content"] or "").strip():
        return None, ["empty"]
    try:
        return form.model_validate_json(reply["content"]), []
    except ValidationError as error:
        errors = [f"{'.'.join(map(str, e['loc'])) or 'the reply'}: {e['msg']}" for e in error.errors(include_input=False)]
        return None, [f"not in the form asked for: {'; '.join(errors)}"]


def draft_row(reply: Mapping[str, Any], task: WritingTask, model: str) -> tuple[Row | None, list[str]]:
    """The question that a reply makes of a task's, or what is wrong with it."""
    row = task.row
    parsed, reasons = parse_content(reply, prompts.reply_form(row, task.form))
    options: list[str] = []
    if isinstance(parsed, Closed):
        reasons = checks.check_rewritten_question(parsed.question, row) + checks.check_options(
            parsed.options, row["options"], len(row["image_ids"])
        )
        options = [normalize_line(o) for o in parsed.options]
        answer = options[row["answer_index"]] if len(options) == len(row["options"]) else ""
    elif isinstance(parsed, Open):
        if task.form == "open":
            reasons = checks.check_open_question(parsed.question, parsed.answer, row, task.facts)
        else:
            reasons = checks.check_rewritten_question(parsed.question, row) + checks.check_rewritten_answer(parsed.answer, row)
        answer = normalize_line(parsed.answer)
    if not isinstance(parsed, Closed | Open) or reasons:
        return None, reasons
    new_row = question_row(
        **{k: row[k] for k in ("split", "ability", "set", "image_ids", "patient_ids", "source", "findings")},
        task=row["task"] if task.form == "rewrite" else f"{row['task']}_open",
        text=normalize_line(parsed.question),
        options=options,
        answer=answer,
        answer_index=row["answer_index"] if options else None,
        generator=f"{GENERATOR} {model}",
    )
    return new_row, checks.check_written_row(new_row, row)


def write_questions(
    rows: Sequence[Row],
    findings: Iterable[Mapping[str, Any]],
    *,
    writer: Writer,
    seed: int,
    replies: ReplyStore,
    parts: int = 1,
) -> WritingResult:
    """The questions of a source, some of them written by a model; an open one that is added follows its closed one.

    `parts`: sources that the budget is shared by. What could not be written stays as it is. Raises UserError where a service
    can't be asked, Interrupted by a signal; every reply that came by then is kept.
    """
    images = {i for r in rows for i in r["image_ids"]}
    tasks = draw_tasks(rows, describe_findings(findings, images), writer, seed)
    session = WritingSession(rows, writer, seed, replies, parts)
    session.run(tasks)
    written = {(t.row["qa_id"], t.form): t.written_row for t in tasks if t.written_row is not None}
    all_rows: list[Row] = []
    for row in rows:
        all_rows.append(written.get((row["qa_id"], "rewrite")) or row)
        if added := written.get((row["qa_id"], "open")):
            all_rows.append(added)
    unwritten = [t for t in tasks if t.written_row is None]
    counts = {
        "rewritten": sum(form == "rewrite" for _, form in written),
        "added": sum(form == "open" for _, form in written),
        "rejected": sum(bool(t.tries) for t in unwritten),
        "unasked": sum(not t.tries for t in unwritten),
    }
    return WritingResult(all_rows, session.reply_rows, counts, session.budget, session.sent)
