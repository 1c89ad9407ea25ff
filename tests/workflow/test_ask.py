"""A model at an endpoint beside models made here, through the whole workflow. The endpoint is a scripted server on loopback."""

import os
import shutil
from pathlib import Path

import yaml
from test_dag import jobs

from chat_server import Answer, ChatServer, make_completion
from medmim.tables import table_io
from runs import MINI, find_faults, list_snakemake_logs

SECRET = "sk-loopback-3Rw8planted"
REPLIES = Path("results/mini/predictions/served.parquet")
BOARD = Path("results/mini/leaderboard.parquet")


def test_a_model_at_an_endpoint_is_asked_and_nothing_else_of_it_is_made(snakemake, mini: Path, tmp_path: Path) -> None:
    shutil.copytree(mini / "results/.cache", tmp_path / "results/.cache", copy_function=os.link)  # of all the rest
    with ChatServer(lambda body, before: Answer(body=make_completion("A")) if before else Answer(503)) as server:
        values = yaml.safe_load(MINI.read_text())
        endpoint = {"url": server.url, "model": "served-1", "key_env": "PLANTED_KEY", "attempts": 2}
        values["models"]["served"] = {"family": "endpoint", "endpoint": endpoint}
        config = tmp_path / "served.yaml"
        config.write_text(yaml.safe_dump(values, sort_keys=False))
        done = snakemake(tmp_path, BOARD, "--configfile", config, "--cores", "2", PLANTED_KEY=SECRET)
    assert jobs(list_snakemake_logs(tmp_path)[-1].read_text()) == {"ask": 1, "score": 1, "leaderboard": 1}
    found = table_io.read_frame(tmp_path / REPLIES, "predictions")
    assert len(found) == 2 * len(table_io.read_frame(tmp_path / "results/mini/qa/benchmark.parquet", "qa"))
    assert len(server.requests) == 2 * len(found)
    assert set(found.reply) == {"A"} and found.failure.eq("").all()
    board = table_io.read_frame(tmp_path / BOARD, "leaderboard")
    served = board[(board.model == "served") & (board.kind == "closed")]
    assert "accuracy" in set(served.metric) and "loglikelihood_accuracy" not in set(served.metric)
    assert {"mantis", "med-mantis"} < set(board.model)
    assert find_faults(tmp_path, [BOARD]) == []
    assert SECRET not in done.stdout + done.stderr
    assert [p for p in tmp_path.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()] == []
