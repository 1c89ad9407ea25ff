"""A model at an endpoint: a real server on loopback is asked, and fails in every way that services do."""

import base64
import json
import logging
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chat_server import Answer, ChatServer, make_completion, make_error_body, user_text
from config_files import config_file
from forked import Program
from medmim.common.errors import UserError
from medmim.config.endpoint import Endpoint
from medmim.endpoints import client as service
from medmim.endpoints.reply_store import ReplyStore
from medmim.prediction import endpoint_replies
from medmim.provenance.code_digest import WORKFLOW, code_digest
from medmim.questions.row import question_row
from medmim.tables import images, table_io

SECRET = "sk-loopback-7Qx2planted"
CONDITIONS = ["plain", "rotated", "blind", "other_patient", "reordered"]
CFG = {"model": "served", "system": "Be brief.", "conditions": CONDITIONS, "max_new_tokens": 9, "seed": 5, "credentialed": []}


class World:
    """Questions, images, a store, and the settings of an endpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = []
        for n, source in enumerate(["odir", "odir", "odir", "ms_cxr_t"]):
            image_id, png = images.encode_png(np.full((4, 5), 40 * n, np.uint8))
            rows.append(
                dict.fromkeys(["view", "laterality"], "")
                | dict(image_id=image_id, source=source, patient_id=f"{source}/{n}", study_id=f"{source}/{n}", day=None)
                | dict(
                    modality="fundus",
                    width=5,
                    height=4,
                    bytes=png,
                    thumbnail=bytes(4096),
                    origin_file=f"{n}.png",
                    origin_sha256="0" * 64,
                )
                | dict(release_path="p10/x.png" if source == "ms_cxr_t" else "")
            )
        self.pngs = {str(r["image_id"]): r["bytes"] for r in rows}
        self.ids = list(self.pngs)
        for source in ("odir", "ms_cxr_t"):
            images.write_images(folder / f"{source}.images.parquet", [r for r in rows if r["source"] == source])
        self.tables = [folder / "odir.images.parquet", folder / "ms_cxr_t.images.parquet"]
        common = dict(split="benchmark", ability="comparison", set="odir", task="t", source="odir", generator="test/1")
        patients = [f"odir/{n}" for n in range(3)]
        self.questions = [
            question_row(text=f"Which, {n}?", options=["left", "right", "both"], answer="left", image_ids=self.ids[n : n + 2],
                         patient_ids=patients[n : n + 2], **common)
            for n in range(2)
        ]  # fmt: skip
        self.questions.append(
            question_row(text="What is it?", answer="a lesion", image_ids=self.ids[:1], patient_ids=patients[:1], **common)
        )
        table_io.write_table(folder / "qa.parquet", "qa", self.questions)
        self.store = folder / "replies"

    def requests(self, endpoint: Endpoint, conditions: list[str] | None = None) -> list[endpoint_replies.QuestionRequest]:
        ids, _ = endpoint_replies.index_images(self.tables)
        said = {"system": "Be brief.", "max_new_tokens": 9, "seed": 5}
        return endpoint_replies.build_requests(self.questions, conditions or ["plain"], endpoint, image_ids=ids, **said)  # type: ignore[arg-type]

    def ask(self, server: ChatServer, conditions: list[str] | None = None, **settings: Any) -> list[dict[str, Any]]:
        """Rows of the predictions, in this process."""
        endpoint = Endpoint(**{"url": server.url, "model": "served", "key_env": None, **settings})
        wanted = self.requests(endpoint, conditions)
        with ReplyStore(self.store) as store:
            png = images.ImageStore(self.tables).read_png
            failures, self.sent = service.send_requests(wanted, endpoint, store, lambda r: r.build_body(png))
            return endpoint_replies.build_prediction_rows(wanted, store, failures, "served")

    def start(self, server: ChatServer, cfg: dict[str, Any] | None = None, **settings: Any) -> Program:
        """The program, as a rule starts it."""
        endpoint = {"url": server.url, "model": "served", "key_env": "PLANTED_KEY", **settings}
        return Program(
            [WORKFLOW / "scripts/ask.py", "--cfg", config_file(CFG | {"endpoint": endpoint} | (cfg or {})),
             "--code", code_digest("ask.py")["sha256"], "--log", "logs/ask.log", "--qa", "qa.parquet",
             "--images", *(t.name for t in self.tables), "--replies", "replies", "--predictions", "predictions.parquet"],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(WORKFLOW), "PLANTED_KEY": SECRET, "OPENAI_LOG": "debug"},
        )  # fmt: skip

    def run(self, server: ChatServer, cfg: dict[str, Any] | None = None, status: int = 0, **settings: Any) -> str:
        """What the program says; nothing that it says or leaves holds the key."""
        done = self.start(server, cfg, **settings)
        out, said = done.communicate(timeout=600)
        assert done.returncode == status, said
        assert SECRET not in out + said
        left = [path for path in self.folder.rglob("*") if path.is_file()]
        assert self.folder / "logs/ask.log" in left
        assert [path for path in left if SECRET.encode() in path.read_bytes()] == []
        return said

    @property
    def predictions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = table_io.read_table(self.folder / "predictions.parquet", "predictions").to_pylist()
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(service, "FIRST_BACKOFF_SECONDS", 0.01)
    return World(tmp_path)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def once(fault: Answer) -> Callable[[dict[str, Any], int], Answer]:
    """Each question meets a fault at first, then an answer."""
    return lambda body, before: Answer(body=make_completion(f"B: {user_text(body)[:8]}")) if before else fault


# What is asked


def test_a_request_has_the_images_where_their_placeholders_stand(world: World, server: ChatServer) -> None:
    world.ask(server, ["plain", "blind"], concurrency=1)
    plain, *_, blind, _, _ = (asked.body for asked in server.requests)
    urls = [f"data:image/png;base64,{base64.b64encode(world.pngs[i]).decode()}" for i in world.ids[:2]]
    assert plain == {
        "model": "served",
        "temperature": 0,
        "max_tokens": 9,
        "seed": 5,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    *({"type": "image_url", "image_url": {"url": url}} for url in urls),
                    {"type": "text", "text": "Which, 0?\nA: left\nB: right\nC: both"},
                ],
            },
        ],
    }
    assert blind["messages"][1] == {"role": "user", "content": "Which, 0?\nA: left\nB: right\nC: both"}
    assert {asked.path for asked in server.requests} == {"/v1/chat/completions"}
    assert {asked.headers["authorization"] for asked in server.requests} == {"Bearer EMPTY"}


def test_words_and_images_keep_their_order() -> None:
    made = endpoint_replies.build_messages("", "First <image> then <image>, well?", ["a", "b"])
    kinds = [(part["type"], part.get("text") or part["image_url"]["url"]) for part in made[0]["content"]]
    assert kinds == [("text", "First "), ("image_url", "a"), ("text", " then "), ("image_url", "b"), ("text", ", well?")]


def test_rows_are_by_condition_then_as_asked_whatever_comes_first(world: World, server: ChatServer) -> None:
    def slowly(body: dict[str, Any], before: int) -> Answer:
        return Answer(body=make_completion(f" {user_text(body)} "), delay=0.05 * (user_text(body).startswith("Which, 0")))

    server.answer = slowly
    rows = world.ask(server, CONDITIONS, concurrency=6)
    assert 1 < server.max_open_count <= 6
    assert [(r["condition"], r["rotation"]) for r in rows] == [
        *[("plain", 0)] * 3, *[("rotated", 1), ("rotated", 2)] * 2, *[("blind", 0)] * 3,
        *[("reordered", 0)] * 2,
    ]  # fmt: skip
    assert [r["reply"] for r in rows[:5]] == [
        "Which, 0?\nA: left\nB: right\nC: both", "Which, 1?\nA: left\nB: right\nC: both", "What is it?",
        "Which, 0?\nA: right\nB: both\nC: left", "Which, 0?\nA: both\nB: left\nC: right",
    ]  # fmt: skip
    assert all(r["model"] == "served" and r["text_logprobs"] == [] and r["failure"] == "" for r in rows)
    table_io.build_table("predictions", rows)

    server.answer = lambda body, before: Answer(500)
    assert world.ask(server, CONDITIONS) == rows and world.sent == 0
    server.answer, world.store = slowly, world.folder / "others"
    assert world.ask(server, CONDITIONS, concurrency=1) == rows and world.sent == len(rows)


def test_prompt_hashes_tell_prompts_apart_and_not_their_images(world: World, server: ChatServer) -> None:
    by = {(r["qa_id"], r["condition"], r["rotation"]): r["prompt_sha256"] for r in world.ask(server, CONDITIONS)}
    first = world.questions[0]["qa_id"]
    assert by[first, "plain", 0] == by[first, "reordered", 0]
    assert len({by[first, "plain", 0], by[first, "rotated", 1], by[first, "rotated", 2], by[first, "blind", 0]}) == 4


def test_a_key_is_of_all_that_a_reply_depends_on(world: World) -> None:
    def keys(**settings: Any) -> set[str]:
        base = {"url": "https://a.example/v1", "model": "m", "key_env": None}
        return {r.key for r in world.requests(Endpoint(**base | settings), CONDITIONS)}

    usual = keys()
    assert len(usual) == 12
    assert usual == keys(key_env="OTHER", concurrency=1, timeout=3, attempts=1, requests_per_minute=9, credentialed=True)
    assert usual == keys(url="https://a.example/v1/")
    for changed in ({"url": "https://b.example/v1"}, {"model": "n"}, {"logprobs": True}, {"parameters": {"seed": None}}):
        assert not usual & keys(**changed)


def test_parameters_add_change_and_leave_out(world: World, server: ChatServer) -> None:
    others = {"max_completion_tokens": 70, "temperature": 1, "provider": {"data_collection": "deny"}}
    world.ask(server, parameters={"seed": None, "max_tokens": None, **others})
    told = {name: value for name, value in server.requests[0].body.items() if name != "messages"}
    assert told == {"model": "served", **others}


def test_letters_have_their_likelihood_where_all_are_told(world: World, server: ChatServer) -> None:
    half = math.log(0.25)
    first = [("A", half), (" A", half), ("B", -3.0), (" C", -4.0), ("An", -5.0)]

    def answer(body: dict[str, Any], before: int) -> Answer:
        return Answer(body=make_completion("A", first=first if "Which, 0" in user_text(body) else first[:3]))

    server.answer = answer
    told = [r["option_logprobs"] for r in world.ask(server, logprobs=True)]
    assert told == [pytest.approx([math.log(0.5), -3.0, -4.0]), [], []]
    assert (server.requests[0].body["logprobs"], server.requests[0].body["top_logprobs"]) == (True, 20)


def test_an_image_that_is_nowhere_is_named(world: World) -> None:
    world.questions[2] |= {"image_ids": ["release/gone.png"]}
    with pytest.raises(UserError, match=r"shows release/gone\.png, which is in none of the images tables"):
        world.requests(Endpoint(url="http://localhost/v1", model="m"))
    world.questions[2] |= {"image_ids": []}
    with pytest.raises(UserError, match="has 1 placeholders for 0 images"):
        world.requests(Endpoint(url="http://localhost/v1", model="m"))


# Faults that pass

WHOLE = json.dumps(make_completion("A")).encode()


@pytest.mark.parametrize(
    "fault",
    [
        Answer(429, make_error_body("slow down")),
        Answer(429, make_error_body("slow down"), {"Retry-After": "0"}),
        Answer(500, b"<html>oh no</html>", {"Content-Type": "text/html"}),
        Answer(503, make_error_body("loading")),
        Answer(408, make_error_body("timed out")),
        Answer(200, WHOLE[: len(WHOLE) // 2]),
        Answer(200, WHOLE, cut=len(WHOLE) // 2),
        Answer(200, WHOLE, cut=0),
        Answer(200, b""),
        Answer(200, make_error_body("upstream failed")),
        Answer(200, {"choices": []}),
        Answer(200, {"choices": [{"message": {"content": [1]}}]}),
        Answer(200, make_completion("", finish="error")),
        Answer(200, make_completion("late"), delay=600.0),
    ],
    ids=["429", "retry-after", "500", "503", "408", "half json", "cut", "cut at once", "nothing", "error", "no choice",
         "no text", "finish error", "hang"],
)  # fmt: skip
def test_a_fault_that_passes_leaves_no_trace(world: World, server: ChatServer, fault: Answer) -> None:
    server.answer = once(fault)
    rows = world.ask(server, timeout=3.0 if fault.delay else 600.0)
    assert [r["reply"] for r in rows] == ["B: Which, 0", "B: Which, 1", "B: What is"]
    assert len(server.requests) == 6 == world.sent or fault.delay  # on a busy machine a good reply may come too late as well


@pytest.mark.parametrize("form", [lambda: "1", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)])
def test_retry_after_is_waited_for(world: World, server: ChatServer, form: Callable[[], str]) -> None:
    server.answer = lambda body, before: (
        Answer(body=make_completion("A")) if before else Answer(429, make_error_body("slow down"), {"Retry-After": form()})
    )
    world.questions = world.questions[:1]
    world.ask(server)
    first, second = server.requests
    assert second.received_at - first.received_at >= 0.95


def test_waits_grow_with_each_attempt(world: World, server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "medmim")
    server.answer = lambda body, before: (
        Answer(body=make_completion("A")) if before > 4 else Answer(500, make_error_body("not yet"))
    )
    world.questions = world.questions[:1]
    world.ask(server)
    gaps = [b.received_at - a.received_at for a, b in zip(server.requests, server.requests[1:], strict=False)]
    assert len(gaps) == 5 and all(gap >= 0.01 * 2**n for n, gap in enumerate(gaps))
    assert len(re.findall(r"question \w+ \(plain\): 500: not yet; again in", caplog.text)) == 5


def test_requests_are_spaced_as_the_limit_says(world: World, server: ChatServer) -> None:
    server.answer = once(Answer(429, make_error_body("slow down")))
    start = time.monotonic()
    world.ask(server, requests_per_minute=600)
    assert (
        len(server.requests) == 6 and time.monotonic() - start >= 0.5
    )  # the first at once, each other a tenth of a second later


# Replies of every kind


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (make_completion(""), ""),
        (make_completion(None, refusal="I can't help with that."), "I can't help with that."),
        (make_completion(None, "length"), ""),
        (make_completion("A: le", "length"), "A: le"),
        (make_completion("", "content_filter"), ""),
        (make_completion(" B\n"), "B"),
        (make_completion("B \ud83d", "length"), "B ?"),
    ],
    ids=["empty", "refusal", "nothing but thought", "length", "content_filter", "spaces", "half a character"],
)
def test_what_the_model_says_is_its_answer(world: World, server: ChatServer, answer: dict[str, Any], reply: str) -> None:
    server.answer = lambda body, before: Answer(body=answer)
    rows = world.ask(server)
    assert [(r["reply"], r["failure"]) for r in rows] == [(reply, "")] * 3
    with ReplyStore(world.store) as store:
        told = endpoint_replies.summarise_usage(world.requests(Endpoint(url=server.url, model="served", key_env=None)), store)
    assert told == {
        "replies": 3, "finish_reasons": {answer["choices"][0]["finish_reason"]: 3}, "models": {"served-2026": 3},
        "system_fingerprints": {"fp_1": 3}, "tokens": {"completion_tokens": 6, "prompt_tokens": 30, "total_tokens": 36},
    }  # fmt: skip
    assert world.ask(server) == rows and len(server.requests) == 3


LONG = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Answer(400, {"object": "error", "message": LONG, "code": 400}), service.TOO_LONG),
        (Answer(400, make_error_body("Too big.", code="context_length_exceeded")), service.TOO_LONG),
        (Answer(413, b"<html>Request Entity Too Large</html>", {"Content-Type": "text/html"}), service.TOO_LONG),
        (Answer(400, make_error_body("Managed policy", code="content_filter")), service.FILTERED),
    ],
)
def test_a_question_that_cannot_be_asked_is_a_failure_of_its_own(
    world: World, server: ChatServer, caplog: pytest.LogCaptureFixture, fault: Answer, failure: str
) -> None:
    server.answer = lambda body, before: fault if "Which, 1" in user_text(body) else Answer(body=make_completion("A"))
    rows = world.ask(server, ["plain", "rotated"])
    assert [r["failure"] for r in rows] == ["", failure, "", "", "", failure, failure]
    assert {r["reply"] for r in rows if r["failure"]} == {""}
    assert len(server.requests) == 7
    assert f"question {world.questions[1]['qa_id']} (plain) can't be asked: {fault.status}: " in caplog.text


def test_if_no_question_can_be_asked_the_job_fails(world: World, server: ChatServer) -> None:
    server.answer = lambda body, before: Answer(400, make_error_body(LONG))
    with pytest.raises(UserError, match="could be asked none of 3 questions: the prompt is longer"):
        world.ask(server)


# Faults that stay


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Answer(401, make_error_body("Incorrect API key")), "after 1 attempt: 401: Incorrect API key. is that the right key?"),
        (
            Answer(404, make_error_body("The model `served` does not exist.")),
            "404: The model `served` does not exist. are endpoint.url and",
        ),
        (Answer(400, make_error_body("seed: extra inputs are not permitted")), "400: seed: extra inputs are not permitted"),
        (Answer(422, {"detail": "max_tokens is too large: 9"}), "422: max_tokens is too large: 9"),
        (Answer(429, make_error_body("no money left", code="insufficient_quota")), "429: no money left"),
        (Answer(429, make_error_body("today's are spent"), {"Retry-After": "86400"}), "(to be asked again in 86400 s)"),
        (Answer(307, b"", {"Location": "http://127.0.0.1:9/v1/chat/completions"}), "307: no message"),
    ],
    ids=["401", "404", "400", "422", "quota", "tomorrow", "redirect"],
)
def test_what_will_not_pass_fails_at_once(world: World, server: ChatServer, fault: Answer, message: str) -> None:
    server.answer = lambda body, before: fault
    with pytest.raises(UserError) as error:
        world.ask(server, concurrency=1)
    assert message in str(error.value) and "0 of 3 replies are kept" in str(error.value)
    assert len(server.requests) == 1


def test_nobody_there(world: World, server: ChatServer) -> None:
    server.__exit__()
    with pytest.raises(UserError, match=r"after 3 attempts: no connection: .+\. 0 of 3 replies are kept"):
        world.ask(server, attempts=3)


def test_a_hang_ends_at_the_timeout(world: World, server: ChatServer) -> None:
    server.answer = lambda body, before: Answer(body=make_completion("late"), delay=600.0)
    with pytest.raises(UserError, match=r"after 2 attempts: no reply within endpoint\.timeout"):
        world.ask(server, timeout=0.1, attempts=2, concurrency=1)


def test_replies_on_their_way_are_kept_when_another_question_fails(world: World, server: ChatServer) -> None:
    def answer(body: dict[str, Any], before: int) -> Answer:
        failing = "Which, 0" in user_text(body)
        return Answer(401, make_error_body("no")) if failing else Answer(body=make_completion("A"), delay=0.3)

    server.answer = answer
    with pytest.raises(UserError, match="2 of 3 replies are kept, a new start asks for the rest"):
        world.ask(server, concurrency=3)


def test_a_key_that_is_not_there_is_named(world: World, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", " \n", f"{SECRET}\n{SECRET}", f"{SECRET}’"):
        monkeypatch.setenv("PLANTED_KEY", value)
        with pytest.raises(UserError) as error:
            world.ask(server, key_env="PLANTED_KEY")
        assert str(error.value) == "the environment variable PLANTED_KEY, which endpoint.key_env names, holds no key"
    monkeypatch.setenv("PLANTED_KEY", f"{SECRET}\n")
    assert server.requests == [] and len(world.ask(server, key_env="PLANTED_KEY")) == len(server.requests)
    assert {asked.headers["authorization"] for asked in server.requests} == {f"Bearer {SECRET}"}


def test_no_credential_of_another_service_is_sent(world: World, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Other: {SECRET}\nAuthorization: Bearer {SECRET}")
    world.ask(server)
    assert server.requests and all(SECRET not in str(asked.headers) for asked in server.requests)


# The program


def test_the_program_leaves_predictions_their_provenance_and_no_key(world: World, server: ChatServer) -> None:
    server.answer = once(Answer(500, make_error_body(f"no luck with Bearer {SECRET}")))
    said = world.run(server)
    assert "500: no luck with Bearer (the key); again in" in said
    assert "served: 12 replies, 24 requests" in said
    assert {asked.headers["authorization"] for asked in server.requests} == {f"Bearer {SECRET}"}
    assert [r["condition"] for r in world.predictions][::3] == ["plain", "rotated", "rotated", "blind"]
    record = json.loads((world.folder / "predictions.parquet.prov.json").read_text())
    assert record["endpoint"]["sent"] == 24 and record["endpoint"]["tokens"]["total_tokens"] == 144
    assert record["endpoint"]["credentialed"] == {}
    modules = record["code"]["modules"]
    assert {"medmim.endpoints.client", "medmim.prediction.endpoint_replies", "medmim.endpoints.reply_store"} <= modules.keys()
    assert {"openai", "aiolimiter", "tenacity"} <= record["code"]["packages"].keys()
    assert not {"torch", "transformers"} & record["code"]["packages"].keys()

    assert world.ask(server, CONDITIONS, concurrency=1) == world.predictions and len(server.requests) == 24


def test_a_refused_key_ends_the_program_and_is_not_told(world: World, server: ChatServer) -> None:
    server.answer = lambda body, before: Answer(401, make_error_body(f"Incorrect API key: {SECRET} {'.' * 252}{SECRET}"))
    said = world.run(server, status=1, concurrency=1)
    assert "401: Incorrect API key: (the key) ...." in said and said.count("is that the right key?") == 1
    assert SECRET[:9] not in said  # nor a part, where a long message is cut
    assert len(server.requests) == 1 and not (world.folder / "predictions.parquet").exists()


def test_a_question_that_fails_for_ever_ends_the_program_and_loses_no_reply(world: World, server: ChatServer) -> None:
    server.answer = lambda body, before: (
        Answer(500, make_error_body("broken")) if "What is it" in user_text(body) else Answer(body=make_completion("A"))
    )
    said = world.run(server, status=1, concurrency=1, attempts=2)
    assert f"question {world.questions[2]['qa_id']} (plain): {server.url} after 2 attempts: 500: broken" in said
    assert "2 of 12 replies are kept, a new start asks for the rest" in said
    assert not (world.folder / "predictions.parquet").exists()
    assert len(server.requests) == 4
    server.answer = lambda body, before: Answer(body=make_completion("B"))
    assert [r["reply"] for r in world.ask(server, CONDITIONS)] == ["A", "A", *["B"] * 10]
    assert len(server.requests) == 4 + 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_that_was_answered_is_asked_again_after_a_kill(world: World, server: ChatServer, number: signal.Signals) -> None:
    server.answer = lambda body, before: Answer(body=make_completion("A"), delay=0.0 if len(server.requests) < 5 else 1.0)
    running = world.start(server, concurrency=2)
    while len(server.requests) < 6:  # two on their way
        time.sleep(0.02)
        assert running.poll() is None
    running.send_signal(number)
    _, said = running.communicate(timeout=600)
    kept = 4 if number == signal.SIGKILL else 6
    if number != signal.SIGKILL:
        assert running.returncode == 75 and "told to stop: 6 of 12 replies are kept" in said
    assert len(server.requests) == 6
    server.answer = lambda body, before: Answer(body=make_completion("B"))
    assert [r["reply"] for r in world.ask(server, CONDITIONS)] == ["A"] * kept + ["B"] * (12 - kept)
    assert len(server.requests) == 6 + 12 - kept


def credentialed(world: World) -> None:
    """A question that shows an image of a credentialed source, as the release names it, and one about it in words alone."""
    common = dict(split="benchmark", ability="comparison", set="comparison", task="t", generator="test/1", answer="worse")
    shown = {"image_ids": [world.ids[0], "release/p10/x.png"], "patient_ids": ["odir/0", "ms_cxr_t/3"]}
    world.questions += [
        question_row(text="How did it change?", options=["worse", "better"], source="odir", **shown, **common),
        question_row(text="And in words?", options=["worse", "better"], source="ms_cxr_t", **common),
    ]
    table_io.write_table(world.folder / "qa.parquet", "qa", world.questions)


def test_nothing_of_a_credentialed_source_is_sent_where_that_is_not_said_to_be_allowed(world: World, server: ChatServer) -> None:
    credentialed(world)
    said = world.run(server, {"credentialed": ["embed", "ms_cxr_t"]}, status=1)
    assert f"would go to {server.url} (ms_cxr_t: 2 questions, 1 images): nothing was sent" in said
    assert "PhysioNet's rules forbid" in said and "models.served.endpoint.credentialed: true" in said
    assert server.requests == [] and not world.store.exists() and not (world.folder / "predictions.parquet").exists()


def test_where_it_is_allowed_it_is_recorded(world: World, server: ChatServer) -> None:
    credentialed(world)
    world.run(server, {"credentialed": ["embed", "ms_cxr_t"]}, credentialed=True)
    assert (len(world.predictions), len(server.requests)) == (19, 18)  # blind is plain where there is no image
    record = json.loads((world.folder / "predictions.parquet.prov.json").read_text())
    assert record["endpoint"]["credentialed"] == {"ms_cxr_t": {"questions": 2, "images": 1}}
    assert record["cfg"]["endpoint"]["credentialed"] is True


def test_words_of_a_credentialed_source_are_credentialed_too(world: World) -> None:
    credentialed(world)
    endpoint = Endpoint(url="http://localhost/v1", model="m")
    of_question = {q["qa_id"]: q["source"] for q in world.questions}
    _, sources = endpoint_replies.index_images(world.tables)
    with pytest.raises(UserError, match="ms_cxr_t: 1 questions, 0 images"):
        endpoint_replies.check_credentialed(
            world.requests(endpoint, ["blind"]), of_question, sources, ["ms_cxr_t"], endpoint, "m"
        )


def test_an_image_that_a_credentialed_source_also_has_is_credentialed(world: World) -> None:
    table = table_io.read_frame(world.tables[0], "images")
    images.write_images(world.folder / "more.parquet", [table.iloc[0].to_dict() | {"source": "embed", "day": None}])
    endpoint = Endpoint(url="http://localhost/v1", model="m")
    _, sources = endpoint_replies.index_images([*world.tables, world.folder / "more.parquet"])
    of_question = {q["qa_id"]: q["source"] for q in world.questions}
    with pytest.raises(UserError, match="embed: 2 questions, 1 images"):
        endpoint_replies.check_credentialed(world.requests(endpoint), of_question, sources, ["embed"], endpoint, "m")
    assert endpoint_replies.check_credentialed(world.requests(endpoint), of_question, sources, [], endpoint, "m") == {}
