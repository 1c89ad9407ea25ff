"""How a job comes into the queue once, whatever the controller does meanwhile."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from medmim.common.slurm_client import PassingRefusal, QueueRow, SlurmJob, SubmissionError, submit_script
from snakemake_executor_plugin_slurm_medmim import queue
from snakemake_executor_plugin_slurm_medmim.fingerprints import fingerprint_job, run_name
from snakemake_executor_plugin_slurm_medmim.queue import RunQueue, name_jobs

JOB = SimpleNamespace(name="rule", shellcmd="make", input=[], output=["o"], is_group=lambda: False)
END = fingerprint_job(JOB)


def row(job: str, state: str, comment: str = "", name: str = "run", folder: str = "/") -> QueueRow:
    return QueueRow(SlurmJob(job), state, "", folder, name, comment)


class Slurm:
    """A controller that answers, to one question after the other, what it is told to; the last answer stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[QueueRow] | None] = [[]]
        self.submissions: list[SlurmJob | SubmissionError | None] = [SlurmJob("7")]
        self.commands: list[list[str]] = []
        self.cancelled: list[SlurmJob] = []
        monkeypatch.setattr(queue, "RETRY_SECONDS", 0)
        monkeypatch.setattr(queue, "query_queue", lambda clusters: self.answers.pop(0) if self.answers[1:] else self.answers[0])
        monkeypatch.setattr(queue, "submit_script", self.submit)
        monkeypatch.setattr(queue, "cancel_jobs", self.cancelled.extend)

    def submit(self, command: list[str], script: str, cluster: str) -> SlurmJob | None:
        self.commands.append([*command, script])
        answer = self.submissions.pop(0)
        if isinstance(answer, SubmissionError):
            raise answer
        return answer


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Slurm:
    monkeypatch.chdir(tmp_path)
    return Slurm(monkeypatch)


def make_queue(is_open: bool = True) -> RunQueue:
    return RunQueue("run", Path(), logging.getLogger("test"), 0, lambda: is_open)


def submit(run_queue: RunQueue | None = None) -> tuple[str, bool]:
    """Submit the job; its SLURM job, and whether it was taken over."""
    run_queue = run_queue or make_queue()
    job, fingerprint, is_earlier = run_queue.submit_once(JOB, "", lambda end: ["sbatch", end], lambda end: f"script {end}")
    assert fingerprint == END
    return job.id, is_earlier


def test_a_job_is_submitted_with_its_fingerprint(slurm: Slurm) -> None:
    assert submit() == ("7", False) and slurm.commands == [["sbatch", END, f"script {END}"]]


def test_a_job_that_is_in_the_queue_is_taken_over_once(slurm: Slurm) -> None:
    slurm.answers = [
        [row("3", "COMPLETED", f"rule {END}"), row("4", "RUNNING", "rule another"), row("5", "PENDING", f"rule {END}")]
    ]
    slurm.submissions = [SlurmJob("8")]
    run_queue = make_queue()
    assert submit(run_queue) == ("5", True) and slurm.commands == []
    assert submit(run_queue) == ("8", False)  # the other one failed


def test_another_runs_job_is_not_taken_over(slurm: Slurm) -> None:
    slurm.answers = [[row("5", "PENDING", f"rule {END}", name="another")]]
    assert submit() == ("7", False)


def test_a_job_that_was_renamed_is_found_by_its_id(slurm: Slurm) -> None:
    """By its id and working directory: a site may begin its ids anew."""
    submit()
    slurm.answers = [[row("7", "RUNNING", "(null)", name="mine", folder=str(Path.cwd()))]]
    assert submit() == ("7", True)
    slurm.answers, slurm.submissions = [[row("7", "RUNNING", "(null)", name="mine", folder="/elsewhere")]], [SlurmJob("9")]
    assert submit() == ("9", False)


def test_half_a_line_in_the_ledger_is_no_fault(slurm: Slurm) -> None:
    Path("run.jobs").write_text('{"id": "5", "clus')
    assert submit() == ("7", False)


def test_nothing_is_submitted_while_no_controller_answers(slurm: Slurm) -> None:
    slurm.answers = [None, None, []]
    assert submit() == ("7", False) and len(slurm.answers) == 1


@pytest.mark.parametrize("refusal", [SubmissionError, PassingRefusal])
def test_a_refusal_is_passed_on(slurm: Slurm, refusal: type[SubmissionError]) -> None:
    slurm.submissions = [refusal("words")]
    with pytest.raises(refusal, match="words"):
        submit()


def test_a_job_of_which_it_is_not_known_whether_it_was_accepted_is_looked_for(slurm: Slurm) -> None:
    slurm.answers = [[], None, None, [row("8", "PENDING", f"rule {END}")]]
    slurm.submissions = [PassingRefusal("Unable to contact slurm controller")]
    assert submit() == ("8", False)
    slurm.answers, slurm.submissions = [[], [row("8", "PENDING", f"rule {END}")]], [None]
    assert submit() == ("8", False)
    slurm.submissions = [None]
    slurm.answers = [[]]
    with pytest.raises(SubmissionError, match="no job id"):
        submit()


def test_states_are_waited_for_until_snakemake_ends(slurm: Slurm) -> None:
    slurm.answers = [None, [row("1", "RUNNING")]]
    assert make_queue().poll([SlurmJob("1")]) == {SlurmJob("1"): "RUNNING"}
    slurm.answers = [None]
    assert make_queue(is_open=False).poll([SlurmJob("1")]) is None


def test_a_job_that_is_done_and_queued_again_is_cancelled(slurm: Slurm) -> None:
    run_queue = make_queue()
    run_queue.note_done(SlurmJob("1"))
    slurm.answers = [[row("1", "COMPLETING"), row("2", "PENDING")], [row("1", "PENDING"), row("2", "PENDING")]]
    for _ in range(3):
        run_queue.poll([SlurmJob("2")])
    assert slurm.cancelled == [SlurmJob("1")]


def test_a_site_may_put_a_prefix_before_the_name(slurm: Slurm) -> None:
    name = run_name(Path.cwd())
    assert [name_jobs(prefix) for prefix in (None, "", "me")] == [name, name, f"me_{name}"]


def test_sbatch_says_what_it_refuses() -> None:
    with pytest.raises(SubmissionError, match=r"no such partition \(by sh -c 'echo no such partition"):
        submit_script(["sh", "-c", "echo no such partition >&2; exit 1"], "")
    with pytest.raises(SubmissionError, match="No such file"):
        submit_script(["no-such-program"], "")


@pytest.mark.parametrize(
    ("answer", "job"),
    [("7\n", "7"), ("7;test", "7"), ("Welcome to 5 nodes\n12\n", "12"), ("4 of 5 nodes are up", None), ("", None)],
)
def test_the_job_id_is_the_line_that_is_one(answer: str, job: str | None) -> None:
    submitted = submit_script(["cat"], answer)
    assert (submitted and submitted.id) == job


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        ("sbatch: error: AssocMaxSubmitJobLimit\nJob violates accounting/QOS policy", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        ("Batch job submission failed: Required partition not available (inactive or drain)", True),
        ("Batch job submission failed: Socket timed out on send/recv operation", True),
        ("Unable to contact slurm controller (connect failure)", True),
        (
            "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            False,
        ),
        ("Batch job submission failed: Invalid account or account/partition combination specified", False),
        ("Batch job submission failed: Requested node configuration is not available", False),
    ],
)
def test_refusals_that_pass_are_told_from_those_that_do_not(words: str, passes: bool) -> None:
    with pytest.raises(SubmissionError) as refusal:
        submit_script(["sh", "-c", 'echo "$0" >&2; exit 1', words], "")
    assert isinstance(refusal.value, PassingRefusal) is passes
