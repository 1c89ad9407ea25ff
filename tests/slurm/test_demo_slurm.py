"""The literal `snakemake --profile slurm` makes the demo, and gives the same bytes as one machine does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from submit import Submitted

from medmim import provenance
from runs import ROOT, artifacts

DEMO = ROOT / "config/demo.yaml"
RUN = Path("results/demo")


@pytest.fixture(scope="module")
def submitted(running: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("submitted")
    Submitted(folder, config=DEMO, fast=False).end(seconds=1200)
    yield folder


def test_every_artifact_has_the_same_bytes_as_on_one_machine(submitted: Path, demo: Path) -> None:
    here, there = artifacts(demo, RUN), artifacts(submitted, RUN)
    assert len(here) > 60 and here.keys() >= {"leaderboard.parquet", "report.html", "models/med-mantis/adapter_model.safetensors"}
    assert [name for name in here if there.get(name) != here[name]] == [] and there.keys() == here.keys()


def test_all_of_it_ran_on_the_nodes(submitted: Path, running: Cluster) -> None:
    jobs = running.jobs().values()
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert {job["NodeList"] for job in jobs} == {"c1", "c2"}
    hosts = {provenance.read(path)["machine"]["host"] for path in provenance.sidecars(submitted / RUN)}
    assert hosts == {"c1", "c2"}


def test_a_second_call_has_nothing_to_do(cluster: Cluster, submitted: Path) -> None:
    before = len(cluster.jobs())
    assert "Nothing to be done" in Submitted(submitted, config=DEMO, fast=False).end()
    assert len(cluster.jobs()) == before


def test_its_audit_finds_no_fault(cluster: Cluster, submitted: Path) -> None:
    assert "agree with their provenance" in Submitted(submitted, "audit", config=DEMO, fast=False).end()
