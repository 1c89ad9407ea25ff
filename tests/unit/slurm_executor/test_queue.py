"""How a job comes into the queue once, whatever the controller does meanwhile."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from medmim.common.slurm_client import SubmissionError, submit_script
from snakemake_executor_plugin_slurm_medmim import queue
from snakemake_executor_plugin_slurm_medmim.fingerprints import fingerprint_job, run_name
from snakemake_executor_plugin_slurm_medmim.queue import RunQueue

JOB = SimpleNamespace(name="rule", shellcmd="make", input=[], output=["o"], is_group=lambda: False)
END = fingerprint_job(JOB)
Rows = list[list[str]] | None


class Slurm:
    """A controller that answers, to one question after the other, what it is told to; the last answer stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[Rows] = [[]]
        self.submissions: list[str | SubmissionError] = ["7"]
        self.commands: list[list[str]] = []
        monkeypatch.setattr(queue, "RETRY_SECONDS", 0)
        monkeypatch.setattr(queue, "query_queue", lambda name: self.answers.pop(0) if self.answers[1:] else self.answers[0])
        monkeypatch.setattr(queue, "submit_script", self.submit)

    def submit(self, command: list[str], script: str) -> str:
        self.commands.append(command)
        answer = self.submissions.pop(0)
        if isinstance(answer, SubmissionError):
            raise answer
        return answer


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Slurm:
    monkeypatch.chdir(tmp_path)
    return Slurm(monkeypatch)


def submit(is_open: bool = True) -> tuple[str, bool]:
    return RunQueue(None, logging.getLogger("test"), lambda: is_open).submit_once(JOB, lambda end: ["sbatch", end], "script")


def test_a_job_is_submitted_with_its_fingerprint(slurm: Slurm) -> None:
    assert submit() == ("7", False) and slurm.commands == [["sbatch", END]]


def test_a_job_that_is_in_the_queue_is_taken_over(slurm: Slurm) -> None:
    slurm.answers = [[["3", "COMPLETED", f"rule {END}"], ["4", "RUNNING", "rule another"], ["5", "PENDING", f"rule {END}"]]]
    assert submit() == ("5", True) and slurm.commands == []


def test_nothing_is_submitted_while_no_controller_answers(slurm: Slurm) -> None:
    slurm.answers = [None, None, []]
    assert submit() == ("7", False) and len(slurm.answers) == 1


def test_a_refusal_is_final(slurm: Slurm) -> None:
    slurm.submissions = [SubmissionError("invalid partition")]
    with pytest.raises(SubmissionError, match="invalid partition"):
        submit()


def test_a_controller_that_goes_away_during_a_submission_may_have_the_job(slurm: Slurm) -> None:
    slurm.answers = [[], None, None, [["8", "PENDING", f"rule {END}"]]]
    slurm.submissions = [SubmissionError("Unable to contact slurm controller")]
    assert submit() == ("8", True)


def test_a_controller_that_goes_away_during_a_submission_may_not_have_it(slurm: Slurm) -> None:
    slurm.answers = [[], None, []]
    slurm.submissions = [SubmissionError("Unable to contact slurm controller"), "9"]
    assert submit() == ("9", False)


def test_states_are_waited_for_until_snakemake_ends(slurm: Slurm) -> None:
    slurm.answers = [None, [["1", "RUNNING", ""]]]
    assert RunQueue(None, logging.getLogger("test"), lambda: True).poll(["1"]) == {"1": "RUNNING"}
    slurm.answers = [None]
    assert RunQueue(None, logging.getLogger("test"), lambda: False).poll(["1"]) is None


def test_a_site_may_put_a_prefix_before_the_name(slurm: Slurm) -> None:
    name = run_name(Path.cwd())
    assert [RunQueue(prefix, logging.getLogger("test"), lambda: True).name for prefix in (None, "", "me")] == [
        name,
        name,
        f"me_{name}",
    ]


def test_sbatch_says_what_it_refuses() -> None:
    assert submit_script(["cat"], "#!/bin/sh\n") == "#!/bin/sh\n"
    with pytest.raises(SubmissionError, match=r"no such partition \(by sh -c 'echo no such partition"):
        submit_script(["sh", "-c", "echo no such partition >&2; exit 1"], "")
    with pytest.raises(SubmissionError, match="No such file"):
        submit_script(["no-such-program"], "")
