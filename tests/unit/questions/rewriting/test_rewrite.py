"""Questions written by a model at an endpoint: a scripted server on loopback writes, badly and well, and fails as services do."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from qa_made import make_source_tables

from chat_server import Answer, BatchServer, ChatServer, make_completion, make_error_body
from config_files import config_file
from forked import Program
from medmim.common import files
from medmim.common.errors import UserError
from medmim.config.question_writer import Writer
from medmim.endpoints import batch, client
from medmim.endpoints.reply_store import ReplyStore
from medmim.provenance.code_digest import WORKFLOW, code_digest
from medmim.questions.prompt import strip_placeholders
from medmim.questions.rewriting import rewrite
from medmim.questions.validation import check_row
from medmim.tables import data_policy, table_io
from medmim.tables.data_policy import DataPolicy

SECRET = "sk-loopback-9Zk4planted"
PRICES = {"usd_per_million_prompt": 2.5, "usd_per_million_completion": 10.0}
Body = dict[str, Any]


def told(body: Body) -> dict[str, Any]:
    """What the model is told of a question."""
    found: dict[str, Any] = json.loads(body["messages"][1]["content"])
    return found


def good(body: Body) -> dict[str, Any]:
    """A sound reply: the same in more everyday words."""
    asked = told(body)
    if "before" in asked:
        return {"sound": True, "reason": ""}
    question = f"Please answer: {asked['question']['text']}"
    if "answer" in asked:
        return {"question": question, "answer": f"What is shown is this: {asked['answer']['text']}"}
    return {"question": question, "options": [o["text"] for o in asked["options"]]}


def said(reply: Any, finish: str = "stop", **message: Any) -> Answer:
    return Answer(body=make_completion(reply if isinstance(reply, str | None) else json.dumps(reply), finish, **message))


def well(body: Body, before: int) -> Answer:
    return said(good(body))


class World:
    """Ten questions of a source, eight of them closed, and how to have them written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = make_source_tables("ms_cxr_t", 30)
        rows = source.generate_questions(open_fraction=0.3, benchmark_fraction=0.3)
        self.rows = [r for r in rows if r["options"]][:8] + [r for r in rows if not r["options"]][:2]
        assert len(self.rows) == 10
        self.findings = [
            {**f, "source": "ms_cxr_t", "origin_file": "a.csv", "origin_row": n} for n, f in enumerate(source.findings)
        ]
        table_io.write_table(folder / "qa.parquet", "qa", self.rows)
        table_io.write_table(folder / "findings.parquet", "findings", self.findings)
        self.replies = folder / "replies/ms_cxr_t"

    def settings(self, server: ChatServer, **values: Any) -> dict[str, Any]:
        generator = {"url": server.url, "model": "writing", "key_env": None, **PRICES, **values.pop("generator", {})}
        reviewer = values.pop("reviewer", None)
        found = {"generator": generator, "budget_tokens": 10**8, "budget_usd": 1000, **values}
        if reviewer is not None:
            found["reviewer"] = {"url": server.url, "model": "reviewing", "key_env": None, **PRICES, **reviewer}
        return found

    def write(self, server: ChatServer, parts: int = 1, **values: Any) -> rewrite.WritingResult:
        """What is made, in this process."""
        with ReplyStore(self.replies) as replies:
            writer = Writer(**self.settings(server, **values))
            return rewrite.write_questions(self.rows, self.findings, writer=writer, seed=5, replies=replies, parts=parts)

    def start(self, server: ChatServer, cfg: dict[str, Any] | None = None, **values: Any) -> Program:
        """The program, as a rule starts it."""
        values["generator"] = {"key_env": "PLANTED_KEY", **values.get("generator", {})}
        told = {"writer": self.settings(server, **values), "seed": 5, "parts": 1, "credentialed": [], **(cfg or {})}
        return Program(
            [WORKFLOW / "scripts/write_qa.py", "--cfg", config_file(told), "--code", code_digest("write_qa.py")["sha256"],
             "--log", "logs/write.log", "--source", "ms_cxr_t", "--qa", "qa.parquet", "--findings", "findings.parquet",
             "--replies", self.replies.relative_to(self.folder), "--written", "written.parquet", "--writing", "writing.parquet"],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(WORKFLOW), "PLANTED_KEY": SECRET, "OPENAI_LOG": "debug"},
        )  # fmt: skip

    def run(self, server: ChatServer, cfg: dict[str, Any] | None = None, status: int = 0, **values: Any) -> str:
        """What the program says; nothing that it says or leaves holds the key."""
        done = self.start(server, cfg, **values)
        out, said = done.communicate(timeout=600)
        assert done.returncode == status, said
        assert SECRET not in out + said
        assert [p for p in self.folder.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()] == []
        return said

    @property
    def left(self) -> dict[str, str]:
        return {name: files.hash_file(self.folder / f"{name}.parquet") for name in ("written", "writing")}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(client, "FIRST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(batch, "FIRST_POLL_SECONDS", 0.01)
    return World(tmp_path)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(well) as running:
        yield running


@contextmanager
def batches(looks: int = 1) -> Iterator[BatchServer]:
    server = BatchServer(well, looks)
    with server:
        yield server


# What is asked, and what comes of it


def test_all_questions_are_put_in_other_words(world: World, server: ChatServer) -> None:
    made = world.write(server)
    assert made.counts == {"rewritten": 10, "added": 0, "rejected": 0, "unasked": 0} and made.sent == 10
    for before, after in zip(world.rows, made.rows, strict=True):
        changed = {"qa_id", "question", "generator"} | ({"answer"} if not before["options"] else set())
        assert {k for k in before if before[k] != after[k]} == changed
        assert strip_placeholders(after["question"]) == f"Please answer: {strip_placeholders(before['question'])}"
        assert after["generator"] == "writer/1 served-2026" and check_row(after) == []
    table_io.build_table("qa", made.rows)
    table_io.build_table("writing", made.replies)
    assert {(r["outcome"], r["role"], r["attempt"]) for r in made.replies} == {("accepted", "generator", 1)}
    assert made.budget.spent_tokens == 120 and made.budget.spent_usd == pytest.approx(10 * (10 * 2.5 + 2 * 10) / 1e6)


def test_who_rewrites_a_closed_question_is_not_told_its_gold_nor_any_image(world: World, server: ChatServer) -> None:
    world.write(server, open=1.0)
    assert len(server.requests) == 18
    images = {i for r in world.rows for i in r["image_ids"]} | {p for r in world.rows for p in r["patient_ids"]}
    for body in (a.body for a in server.requests):
        asked = told(body)
        assert ("options" in asked) != ("answer" in asked)
        assert not any(i in json.dumps(body) for i in images)
        form = body["response_format"]["json_schema"]
        assert form["strict"] and form["schema"]["additionalProperties"] is False
        assert sorted(form["schema"]["required"]) == sorted(form["schema"]["properties"])
        assert (body["temperature"], body["seed"], body["max_tokens"], body["model"]) == (0, 5, 1000, "writing")
    facts = {f for body in (a.body for a in server.requests) for f in told(body).get("facts", [])}
    assert facts and all(f.startswith("progression ") for f in facts)


def test_open_questions_are_added_from_findings(world: World, server: ChatServer) -> None:
    made = world.write(server, rewrite=0, open=1.0)
    assert made.counts == {"rewritten": 0, "added": 8, "rejected": 0, "unasked": 0}
    assert [r for r in made.rows if r in world.rows] == world.rows
    added = [r for r in made.rows if r not in world.rows]
    for row in added:
        closed = made.rows[made.rows.index(row) - 1]
        assert closed["options"] and not row["options"] and row["task"] == f"{closed['task']}_open"
        assert closed["answer"] in row["answer"] and check_row(row) == []
        assert all(row[k] == closed[k] for k in ("image_ids", "patient_ids", "findings", "split", "set", "ability", "source"))


def test_shares_grow_from_the_same_questions(world: World) -> None:
    def ids(**values: Any) -> list[tuple[str, str]]:
        author = {"url": "http://localhost/v1", "model": "m", **PRICES}
        writer = Writer.model_validate({"generator": author, "budget_tokens": 1, "budget_usd": 1, **values})
        return [(t.form, t.row["qa_id"]) for t in rewrite.draw_tasks(world.rows, {}, writer, 5)]

    some, all_ = ids(rewrite=0.5), ids(rewrite=1, open=1)
    assert 0 < len(some) < 10 and len(all_) == 18
    assert some == [i for i in all_ if i in some]
    assert {split for split in ("train", "benchmark") if ids(splits=[split])} == {"train", "benchmark"} & {
        r["split"] for r in world.rows
    }


def changed(body: Body, **values: Any) -> dict[str, Any]:
    return good(body) | values


BAD: dict[str, tuple[Callable[[Body], Answer], str]] = {
    "empty": (lambda b: said(""), "empty"),
    "nothing": (lambda b: said(None), "empty"),
    "refusal": (lambda b: said(None, refusal="I can't help with that."), "refused: I can't help with that."),
    "cut off": (lambda b: said(json.dumps(good(b))[:20], "length"), "cut off at its longest"),
    "filtered": (lambda b: said("", "content_filter"), "held back by the service's filter"),
    "half a JSON": (lambda b: said(json.dumps(good(b))[:-7]), "not in the form asked for: the reply: Invalid JSON"),
    "words": (lambda b: said("Sure! Here it is."), "not in the form asked for: the reply: Invalid JSON"),
    "a key too many": (lambda b: said(changed(b, note="x")), "not in the form asked for: note: Extra inputs are not permitted"),
    "a key too few": (lambda b: said({"options": []}), "not in the form asked for: question: Field required"),
    "another type": (lambda b: said(changed(b, question=7)), "question: Input should be a valid string"),
    "no change": (lambda b: said(changed(b, question=told(b)["question"]["text"])), "nothing is worded otherwise"),
    "image beyond": (lambda b: said(changed(b, question=good(b)["question"] + " Image 3?")), "refers to image 3, but"),
    "a fact": (lambda b: said(changed(b, question=good(b)["question"] + " Any fracture?")), 'the question adds "fractur"'),
    "options lost": (lambda b: said(changed(b, options=good(b)["options"][1:])), "options, but there are"),
    "options moved": (lambda b: said(changed(b, options=good(b)["options"][::-1])), "option 1 leaves out"),
    "option twice": (lambda b: said(changed(b, options=good(b)["options"][:1] * 3)), "two options are the same"),
    "a leak": (
        lambda b: said(changed(b, question=f"{good(b)['question']} It is {good(b)['options'][0]}.")),
        "the question gives the answer away",
    ),
    "placeholder": (lambda b: said(changed(b, question="<image>" + good(b)["question"])), "has an <image> placeholder"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_what_can_not_be_used_is_rejected_with_a_reason_and_written_again(world: World, server: ChatServer, bad: str) -> None:
    answer, reason = BAD[bad]
    world.rows = world.rows[:1]
    server.answer = lambda body, before: well(body, before) if len(body["messages"]) > 2 else answer(body)
    made = world.write(server)
    first, second = made.replies
    assert (first["outcome"], second["outcome"]) == ("rejected", "accepted") and reason in first["reason"]
    assert (first["attempt"], first["qa_id"], second["qa_id"]) == (1, "", made.rows[0]["qa_id"])
    again = server.requests[1].body["messages"]
    assert again[:2] == server.requests[0].body["messages"] and first["reason"] in again[3]["content"]
    assert made.counts["rewritten"] == 1 and made.budget.spent_tokens == 24


def test_what_stays_bad_stays_as_the_template_made_it(world: World, server: ChatServer) -> None:
    server.answer = lambda body, before: said("no")
    made = world.write(server, tries=2)
    assert made.rows == world.rows and len(server.requests) == 20
    assert made.counts == {"rewritten": 0, "added": 0, "rejected": 10, "unasked": 0}


def test_a_question_that_the_service_will_not_take_is_asked_once(world: World, server: ChatServer) -> None:
    server.answer = lambda body, before: Answer(400, make_error_body("Managed policy", code="content_filter"))
    made = world.write(server)
    assert made.rows == world.rows and made.counts["rejected"] == 10 == len(server.requests)
    assert {(r["reason"], r["usd"], r["model"]) for r in made.replies} == {(client.FILTERED, 0.0, "")}
    assert world.write(server).replies == made.replies and len(server.requests) == 10


def test_a_question_that_is_there_already_is_not_made_again(world: World, server: ChatServer) -> None:
    twin = dict(world.rows[0]) | {"qa_id": "0" * 16, "findings": []}
    world.rows = [world.rows[0], twin]
    made = world.write(server, tries=1)
    assert made.counts["rewritten"] == 1
    assert [r["reason"] for r in made.replies if r["reason"]] == ["there is such a question already"]


def test_the_reviewer_has_the_last_word(world: World, server: ChatServer) -> None:
    def answer(body: Body, before: int) -> Answer:
        if (
            body["model"] == "reviewing"
            and len(asked := told(body)["after"]["question"])
            and "Please answer: Please" not in asked
        ):
            return said({"sound": False, "reason": "It could be better."})
        if len(body["messages"]) > 2:
            return said(changed(body, question=f"Please answer: {good(body)['question']}"))
        return well(body, before)

    server.answer = answer
    made = world.write(server, reviewer={})
    assert made.counts["rewritten"] == 10 and len(made.replies) == 40
    assert {(r["role"], r["attempt"], r["outcome"]) for r in made.replies} == {
        (role, n, outcome) for role in ("generator", "reviewer") for n, outcome in ((1, "rejected"), (2, "accepted"))
    }
    assert {r["reason"] for r in made.replies} == {"", "the reviewer: It could be better."}
    assert all(r["qa_id"] for r in made.replies if r["outcome"] == "accepted")


def test_a_review_that_can_not_be_read_accepts_nothing(world: World, server: ChatServer) -> None:
    server.answer = lambda body, before: said("fine!") if body["model"] == "reviewing" else well(body, before)
    made = world.write(server, reviewer={}, tries=1)
    assert made.rows == world.rows
    assert {r["reason"].split(": ")[0] for r in made.replies} == {"the reviewer's reply"}


# Faults


@pytest.mark.parametrize(
    "fault",
    [Answer(429, make_error_body("slow down"), {"Retry-After": "0.2"}), Answer(500), Answer(body=make_completion("x"), cut=9),
     Answer(body=b'{"choices": ['), Answer(body=make_completion("late"), delay=600)],
    ids=["busy", "broken", "cut", "half a JSON", "hang"],
)  # fmt: skip
def test_faults_that_pass_leave_no_trace(world: World, server: ChatServer, fault: Answer) -> None:
    server.answer = lambda body, before: well(body, before) if before else fault
    made = world.write(server, generator={"timeout": 3 if fault.delay else 600})
    assert made.counts["rewritten"] == 10 == len(made.replies) and (made.sent == 20 or fault.delay)
    server.answer = well
    assert world.write(server) == rewrite.WritingResult(made.rows, made.replies, made.counts, made.budget, 0)
    world.replies = world.folder / "others"
    assert world.write(server).rows == made.rows


def test_the_result_does_not_depend_on_when_replies_come(world: World, server: ChatServer) -> None:
    def slowly(body: Body, before: int) -> Answer:
        bad = "first" in told(body).get("question", {}).get("text", "") and len(body["messages"]) == 2
        return Answer(body=make_completion("no" if bad else json.dumps(good(body))), delay=0.02 * (len(json.dumps(body)) % 7))

    server.answer = slowly
    made = world.write(server, open=1.0, reviewer={}, generator={"concurrency": 16})
    world.replies = world.folder / "others"
    again = world.write(server, open=1.0, reviewer={}, generator={"concurrency": 1})
    assert (made.rows, made.replies) == (again.rows, again.replies)


# The budget


def dear(body: Body, before: int) -> Answer:
    """A sound reply for 1,000 tokens sent and 100 received."""
    answer = well(body, before)
    answer.body["usage"] = {"prompt_tokens": 1000, "completion_tokens": 100}
    return answer


@pytest.mark.parametrize("of", ["tokens", "money"])
@pytest.mark.parametrize("reviewer", [None, {}], ids=["alone", "reviewed"])
def test_what_would_exceed_the_budget_is_not_sent(
    world: World, server: ChatServer, of: str, reviewer: dict[str, Any] | None
) -> None:
    server.answer = dear
    limit = {"budget_tokens": 12_000} if of == "tokens" else {"budget_usd": 0.03 if reviewer is None else 0.06}
    made = world.write(server, reviewer=reviewer, **limit)
    spent = made.budget
    assert spent.spent_tokens <= limit.get("budget_tokens", 10**8) and spent.spent_usd <= limit.get("budget_usd", 1000)
    assert 0 < made.counts["rewritten"] < 10 and made.counts["rewritten"] + made.counts["unasked"] == 10
    assert (
        spent.spent_tokens
        == 1100 * len(server.requests)
        == sum(r["prompt_tokens"] + r["completion_tokens"] for r in made.replies)
    )
    assert spent.spent_usd == pytest.approx(sum(r["usd"] for r in made.replies))
    assert sum(a == b for a, b in zip(made.rows, world.rows, strict=True)) == made.counts["unasked"]
    before = len(server.requests)
    same = world.write(server, reviewer=reviewer, **limit)  # what was paid for counts, and is not paid for again
    assert (same.rows, same.replies, same.sent) == (made.rows, made.replies, 0)
    more = world.write(server, reviewer=reviewer)
    assert more.counts["rewritten"] == 10 and len(server.requests) - before == more.sent
    assert len(server.requests) == (10 if reviewer is None else 20)


def test_sources_have_equal_parts_of_the_budget(world: World, server: ChatServer) -> None:
    server.answer = dear
    assert world.write(server, parts=4, budget_tokens=40_000, budget_usd=8).budget.tokens == 10_000
    assert len(server.requests) < 10


def test_a_service_that_counts_no_tokens_is_taken_to_have_used_the_most(world: World, server: ChatServer) -> None:
    def answer(body: Body, before: int) -> Answer:
        found = well(body, before)
        del found.body["usage"]
        return found

    server.answer = answer
    made = world.write(server)
    for row, asked in zip(made.replies, world.rows, strict=True):
        assert row["completion_tokens"] == 1000 and row["prompt_tokens"] > len(asked["question"])


def test_money_can_not_be_spent_by_a_reply_without_end() -> None:
    author = {"url": "http://localhost/v1", "model": "m", **PRICES}
    with pytest.raises(ValueError, match="could cost any amount"):
        Writer.model_validate({"generator": author | {"parameters": {"max_tokens": None}}, "budget_tokens": 1, "budget_usd": 1})


# The program


def test_the_program_leaves_tables_and_no_key(world: World, server: ChatServer) -> None:
    server.answer = lambda body, before: well(body, before) if before else Answer(500, make_error_body(f"no luck with {SECRET}"))
    text = world.run(server, open=1.0)
    assert "500: no luck with (the key); again in" in text
    assert "ms_cxr_t: 10 rewritten, 8 added, 0 rejected, 0 unasked; 216 tokens, 0.00 USD" in text
    assert {a.headers["authorization"] for a in server.requests} == {f"Bearer {SECRET}"}
    assert len(table_io.read_table(world.folder / "written.parquet", "qa")) == 18
    record = json.loads((world.folder / "written.parquet.prov.json").read_text())
    assert record["writing"]["sent"] == 36 and record["writing"]["tokens"] == 216 and record["writing"]["rewritten"] == 10
    assert {"openai", "nltk", "tenacity", "pydantic"} <= record["code"]["packages"].keys()
    assert not {"torch", "transformers"} & record["code"]["packages"].keys()
    before, asked = world.left, len(server.requests)
    world.run(server, open=1.0)
    assert world.left == before and len(server.requests) == asked


def test_a_spent_budget_is_no_fault_and_says_what_to_do(world: World, server: ChatServer) -> None:
    server.answer = dear
    text = world.run(server, budget_tokens=9000)
    assert "the budget is spent: " in text and "qa.writer.budget_tokens or budget_usd" in text
    assert "(9000 tokens, 1000.00 USD)" in text and "what was paid for is kept" in text
    assert len(table_io.read_table(world.folder / "written.parquet", "qa")) == 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_stopped_pays_for_nothing_twice(world: World, server: ChatServer, number: signal.Signals) -> None:
    go_on = threading.Event()

    def answer(body: Body, before: int) -> Answer:
        if len(server.requests) > 5:
            go_on.wait(60)
        return well(body, before)

    server.answer = answer
    running = world.start(server, generator={"concurrency": 1}, reviewer={"key_env": None})
    while len(server.requests) < 6:
        time.sleep(0.02)
        assert running.poll() is None
    running.send_signal(number)
    kept = 5
    if number == signal.SIGTERM:
        go_on.set()
    _, text = running.communicate(timeout=600)
    if number == signal.SIGTERM:
        found = re.search(r"told to stop: (\d+) of 10 replies are kept", text)
        assert running.returncode == 75 and found is not None, text
        kept = int(found[1])
        assert kept == len(server.requests) < 10
    go_on.set()
    assert not (world.folder / "written.parquet").exists()
    asked = len(server.requests)
    server.answer = well
    world.run(server, reviewer={"key_env": None})
    assert len(server.requests) - asked == 20 - kept
    resumed = world.left
    world.replies = world.folder / "replies/others"
    world.run(server, reviewer={"key_env": None})
    assert world.left == resumed


@pytest.mark.parametrize("how", ["config", "table"])
def test_nothing_credentialed_goes_where_that_is_not_said_to_be_allowed(world: World, server: ChatServer, how: str) -> None:
    cfg = {"credentialed": ["ms_cxr_t"]} if how == "config" else {}
    if how == "table":
        data_policy.set_current_policy(DataPolicy(credentialed=frozenset({"ms_cxr_t"})))
        table_io.write_table(world.folder / "findings.parquet", "findings", world.findings)
        data_policy.set_current_policy(DataPolicy())
    text = world.run(server, cfg, status=1)
    assert f"would go to {server.url} (ms_cxr_t: 10 questions and their findings): nothing was sent" in text
    assert "qa.writer.generator.credentialed: true" in text
    text = world.run(server, cfg, status=1, generator={"credentialed": True}, reviewer={})
    assert "qa.writer.reviewer.credentialed: true" in text
    assert server.requests == [] and not world.replies.exists() and not (world.folder / "written.parquet").exists()
    if how == "table":
        world.run(server, cfg, generator={"credentialed": True})
        record = json.loads((world.folder / "written.parquet.prov.json").read_text())
        assert record["writing"]["credentialed"] == ["ms_cxr_t"] == record["policies"]["written"]["credentialed"]
        assert DataPolicy.from_table(world.folder / "writing.parquet").credentialed == {"ms_cxr_t"}


# Batches

BATCH = {"batch": True}


def test_batches_give_what_single_requests_do(world: World, server: ChatServer) -> None:
    with batches() as there:
        made = world.write(there, generator=BATCH, reviewer=BATCH)
        assert there.requests == [] and len(there.request_lines) == 20 and len(there.batches) == 2
        assert {(line["method"], line["url"]) for line in there.request_lines} == {("POST", "/v1/chat/completions")}
        assert world.write(there, generator=BATCH, reviewer=BATCH).rows == made.rows and len(there.batches) == 2
    world.replies = world.folder / "others"
    assert world.write(server, reviewer={}).rows == made.rows


def test_a_batch_is_found_again_after_a_kill(world: World) -> None:
    with batches(looks=10**6) as there:
        running = world.start(there, generator=BATCH)
        while there.calls["GET /batches/ID"] < 2:
            time.sleep(0.02)
            assert running.poll() is None
        running.kill()
        running.communicate(timeout=600)
        there.polls_needed = 1
        world.run(there, generator=BATCH)
        assert len(there.batches) == 1 and len(there.request_lines) == 10
    assert "writer/1 served-2026" in table_io.read_frame(world.folder / "written.parquet", "qa").generator.to_list()


def test_a_signal_ends_the_wait_for_a_batch(world: World) -> None:
    with batches(looks=10**6) as there:
        running = world.start(there, generator=BATCH)
        while there.calls["GET /batches/ID"] < 2:
            time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        _, text = running.communicate(timeout=600)
        assert running.returncode == 75 and "told to stop: 0 of 10 replies are kept" in text
        with ReplyStore(world.replies) as replies:
            assert list(replies.pending_batches(there.url).values()) == ["batch-0"]


def test_a_batch_whose_making_was_not_confirmed_is_not_made_again(world: World) -> None:
    with batches() as there:
        there.fault = lambda call, before: (
            Answer(body={"id": "batch-0", "object": "batch"}, cut=3) if (call, before) == ("POST /batches", 0) else None
        )
        assert world.write(there, generator=BATCH).counts["rewritten"] == 10
        assert len(there.batches) == 1


@pytest.mark.parametrize("there_is", [True, False])
def test_a_kill_between_a_batch_and_its_note_loses_nothing(world: World, there_is: bool) -> None:
    with batches() as there:
        world.write(there, generator=BATCH)
        first = there.batches["batch-0"]
        for path in world.replies.iterdir():
            path.unlink()
        with ReplyStore(world.replies) as replies:
            name = first["metadata"]["medmim"] if there_is else "f00"
            replies._append_entry({"batch": name, "url": there.url})
        assert world.write(there, generator=BATCH).counts["rewritten"] == 10
        assert len(there.batches) == (1 if there_is else 2)


def test_what_a_batch_leaves_open_is_asked_again(world: World) -> None:
    with batches() as there:
        there.unanswered_counts = [4, 1]
        assert world.write(there, generator=BATCH).counts["rewritten"] == 10
        assert len(there.batches) == 3 and len(there.request_lines) == 10 + 4 + 1


def test_a_batch_that_the_service_no_longer_has_is_made_again(world: World) -> None:
    with ReplyStore(world.replies) as replies, batches() as there:
        replies.record_batch_id(replies.plan_batch(there.url), "batch-gone")
        assert world.write(there, generator=BATCH).counts["rewritten"] == 10
        assert replies.pending_batches(there.url) == {}


def test_what_came_of_a_batch_is_kept_where_some_of_it_was_refused(world: World) -> None:
    with batches() as there:
        there.answer = lambda body, before: (
            Answer(400, make_error_body("no seed")) if "options" not in told(body) else well(body, before)
        )
        with pytest.raises(UserError, match=r"400 no seed \(2 requests of a batch\)\. 8 of 10 replies are kept"):
            world.write(there, generator=BATCH)
        there.answer = well
        assert world.write(there, generator=BATCH).counts["rewritten"] == 10 and len(there.request_lines) == 12


def test_lines_of_a_batch_that_fail(world: World) -> None:
    with batches() as there:
        names: dict[str, int] = {}

        def answer(body: Body, before: int) -> Answer:
            place = names.setdefault(json.dumps(body["messages"]), len(names))
            if place == 0:
                return Answer(400, make_error_body("Managed policy", code="content_filter"))
            return Answer(503, make_error_body("busy")) if place == 1 and not before else well(body, before)

        there.answer = answer
        made = world.write(there, generator=BATCH)
        assert made.counts == {"rewritten": 9, "added": 0, "rejected": 1, "unasked": 0}
        assert len(there.batches) == 2 and len(there.request_lines) == 11
        assert {r["reason"] for r in made.replies} == {"", client.FILTERED}


@pytest.mark.parametrize("fault", [Answer(503), Answer(429, make_error_body("slow"), {"Retry-After": "0"})])
@pytest.mark.parametrize("call", ["POST /files", "POST /batches", "GET /batches/ID", "GET /files/ID/content"])
def test_faults_of_the_batch_api_pass(world: World, fault: Answer, call: str) -> None:
    with batches() as there:
        there.fault = lambda asked, before: fault if asked == call and before == 0 else None
        assert world.write(there, generator=BATCH).counts["rewritten"] == 10
        assert len(there.batches) == 1


def test_a_batch_that_the_service_refuses_says_so(world: World) -> None:
    with batches() as there:
        there.status = "failed"
        there.answer = lambda body, before: Answer(503)
        with pytest.raises(UserError, match="took no batch"):
            world.write(there, generator=BATCH)
        with ReplyStore(world.replies) as replies:
            assert replies.pending_batches(there.url) == {}
    with ChatServer() as plain:  # it has no such API
        plain.answer = lambda body, before: Answer(404, make_error_body("no such thing"))
        plain.handle_request = lambda connection, raw: ChatServer.send_reply(
            plain, connection, Answer(404, make_error_body("no"))
        )  # type: ignore[method-assign]
        with pytest.raises(UserError, match="404: no"):
            world.write(plain, generator=BATCH)
