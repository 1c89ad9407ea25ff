"""The run as an RO-Crate: accepted by the profile's validator, complete, the same every time, silent about this machine."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rocrate.rocrate import ROCrate
from rocrate_validator.services import validate
from rocrate_validator.utils.http import HttpRequester

from medmim.common import files
from medmim.common.errors import UserError
from medmim.provenance import job_record, ro_crate
from medmim.provenance.code_digest import WORKFLOW

ROOT = WORKFLOW.parent

# The terms of https://w3id.org/ro/crate/1.1/context and https://w3id.org/ro/terms/workflow-run/context that our crates use: the
# validator would fetch both. A test fails on a term that is missing here, as the validator would not see it.
BIOSCHEMAS = "https://bioschemas.org"
SCHEMA = """
Dataset CreativeWork Organization Person ComputerLanguage SoftwareApplication SoftwareSourceCode PropertyValue HowTo HowToStep
CreateAction ControlAction OrganizeAction about additionalType actionStatus author contentSize datePublished description
encodingFormat endTime exampleOfWork hasPart identifier instrument license mainEntity mentions name object position
programmingLanguage propertyID result softwareRequirements softwareVersion startTime step unitCode url value version workExample
"""
RUN = "ParameterConnection connection resourceUsage sha256 sourceParameter targetParameter"
CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": {
        **{term: f"http://schema.org/{term}" for term in SCHEMA.split()},
        "File": "http://schema.org/MediaObject",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
        "FormalParameter": f"{BIOSCHEMAS}/FormalParameter",
        "ComputationalWorkflow": f"{BIOSCHEMAS}/ComputationalWorkflow",
        "input": f"{BIOSCHEMAS}/ComputationalWorkflow#input",
        "output": f"{BIOSCHEMAS}/ComputationalWorkflow#output",
    },
    ro_crate.TERMS_URL: {term: f"https://w3id.org/ro/terms/workflow-run#{term}" for term in RUN.split()},
}
ADVICE = {
    # What the profiles advise and a run cannot tell: who started it, who publishes it, and where its code is on the web.
    "The Action SHOULD have an agent that is a Person or Organization",
    "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
    "The Application SHOULD have a url",
    "The organization SHOULD have a URL.",
    "The SoftwareApplication id SHOULD be an absolute URI",
    # Ours is a folder of results, with no README, and its workflow is not described for Bioschemas.
    "The README.md SHOULD be about the crate",
    "The README.md SHOULD have text/markdown as its encodingFormat",
    "The Main Workflow SHOULD comply with Bioschemas ComputationalWorkflow profile version 1.0 or later",
}
Issues = Callable[..., set[str]]
Entity = dict[str, Any]


def copied(run: Path, folder: Path) -> Path:
    """A working directory like `run`, its files under second names: what is written replaces them whole."""
    shutil.copytree(run / "results", folder / "results", copy_function=os.link)
    return folder


@pytest.fixture(scope="module")
def run(mini: Path, tmp_path_factory: pytest.TempPathFactory, snakemake) -> Path:
    """A working directory with a finished run and its crate."""
    folder = copied(mini, tmp_path_factory.mktemp("crate"))
    snakemake(folder, "crate", "--configfile", ROOT / "tests/workflow/mini.yaml", "--cores", "1")
    return folder


def written(folder: Path) -> bytes:
    """The crate of a working directory's run, written anew."""
    with chdir(folder):
        ro_crate.write_crate(Path("results/mini"))
    return (folder / "results/mini" / ro_crate.METADATA_FILE).read_bytes()


def entities(folder: Path) -> dict[str, Entity]:
    graph = json.loads((folder / "results/mini" / ro_crate.METADATA_FILE).read_text())["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    return found


def kinds(entity: Entity) -> list[str]:
    return entity["@type"] if isinstance(entity["@type"], list) else [entity["@type"]]


def references(value: Any) -> set[str]:
    """The entities a property refers to."""
    return {v["@id"] for v in (value if isinstance(value, list) else [value]) if isinstance(v, dict)}


def records(folder: Path) -> list[job_record.Record]:
    return [job_record.read_record(path) for path in job_record.find_sidecars(folder / "results/mini")]


def below(path: str) -> str:
    return Path(path).relative_to("results/mini").as_posix()


@pytest.fixture
def issues(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Issues:
    """What the validator finds in a working directory's crate, with no network."""

    def get(self: HttpRequester, url: str, **options: Any) -> SimpleNamespace:
        context = {"@context": CONTEXTS[url]}
        return SimpleNamespace(status_code=200, headers={"Content-Type": "application/ld+json"}, json=lambda: context)

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)

    def found(folder: Path, severity: str = "REQUIRED") -> set[str]:
        told = {
            "rocrate_uri": str(folder / "results/mini"),
            "profile_identifier": "provenance-run-crate-0.5",
            "requirement_severity": severity,
            "offline": True,
            "cache_path": tmp_path / "http",
        }
        return {str(issue.message) for issue in validate(told).get_issues()}

    return found


def test_the_crate_is_valid_and_follows_all_advice_it_can(run: Path, issues: Issues) -> None:
    assert issues(run, "RECOMMENDED") == ADVICE


def test_the_validator_sees_every_term(run: Path) -> None:
    told = json.loads((run / "results/mini" / ro_crate.METADATA_FILE).read_text())
    assert told["@context"] == list(CONTEXTS)
    used = {key for e in told["@graph"] for key in [*e, *kinds(e)]} - {"@id", "@type"}
    assert used <= {term for terms in CONTEXTS.values() for term in terms}


@pytest.mark.parametrize(
    ("kind", "key", "message"),
    [
        ("Dataset", "license", "license"),
        ("Dataset", "conformsTo", "Provenance Run Crate profile"),
        ("ControlAction", "instrument", "A ControlAction must reference a HowToStep"),
        ("CreateAction", "instrument", "The Action MUST have an instrument"),
        ("FormalParameter", "additionalType", "FormalParameter MUST have an additionalType"),
    ],
)
def test_a_crate_that_lacks_something_is_rejected(
    run: Path, tmp_path: Path, issues: Issues, kind: str, key: str, message: str
) -> None:
    path = copied(run, tmp_path) / "results/mini" / ro_crate.METADATA_FILE
    told = json.loads(path.read_text())
    entity = next(e for e in told["@graph"] if kind in kinds(e) and key in e)
    del entity[key]
    path.unlink()
    path.write_text(json.dumps(told))
    assert any(message in issue for issue in issues(tmp_path))


def test_a_crate_without_one_of_its_files_is_rejected(run: Path, tmp_path: Path, issues: Issues) -> None:
    (copied(run, tmp_path) / "results/mini/qa/train.parquet").unlink()
    assert any("qa/train.parquet" in issue for issue in issues(tmp_path))


def test_every_artifact_is_told_with_its_hash(run: Path) -> None:
    found = entities(run)
    outputs = {below(e["path"]): e for record in records(run) for e in job_record.output_files(record)}
    assert len(outputs) > 60
    for path, entry in outputs.items():
        assert (found[path]["sha256"], found[path]["contentSize"]) == (entry["sha256"], str(entry["bytes"]))
        assert found[path]["sha256"] == files.hash_file(run / "results/mini" / path)
    for path in (path for path, entity in found.items() if "File" in kinds(entity)):
        assert path in outputs or path.startswith(f"{ro_crate.CODE_FOLDER}/")


def test_every_job_is_told_with_what_it_read_made_and_was_told(run: Path) -> None:
    """One action a job: its files, folders for their indexes, every setting's value, its code, its times."""
    found = entities(run)

    def place(entry: Entity) -> str:
        path = below(entry["path"])
        return path.removesuffix(files.INDEX_NAME) if Path(path).name == files.INDEX_NAME else path

    jobs = {record["key"]: record for record in records(run)}
    actions = {e["identifier"]: e for e in found.values() if "CreateAction" in kinds(e) and "identifier" in e}
    assert actions.keys() == jobs.keys()
    for key, record in jobs.items():
        action = actions[key]
        objects = references(action.get("object", []))
        assert {o for o in objects if not o.startswith("#")} == {place(e) for e in job_record.input_files(record)}
        assert references(action["result"]) == {place(e) for e in job_record.output_files(record)}
        values = {found[o]["name"]: found[o]["value"] for o in objects if o.startswith("#value/")}
        assert values == dict(ro_crate._flatten_settings(record["cfg"] | record["options"]))
        assert all(references(found[o]["exampleOfWork"]) <= found.keys() for o in objects)
        assert (action["startTime"], action["endTime"]) == (record["start"], record["end"])
        tool = found[action["instrument"]["@id"]]
        assert (tool["name"], tool["version"]) == (record["program"], record["code"]["sha256"])
        packages = {found[p]["name"]: found[p]["softwareVersion"] for p in references(tool.get("softwareRequirements", []))}
        assert packages == record["code"]["packages"]


def test_all_that_is_referred_to_is_there(run: Path) -> None:
    found = entities(run)
    outside = {"https://doi.org/10.1093/bioinformatics/bts480", "https://snakemake.readthedocs.io"}
    named = {r for entity in found.values() for value in entity.values() for r in references(value)}
    assert {r for r in named - found.keys() if not r.startswith("https://w3id.org/ro/crate/")} == outside
    assert ROCrate(run / "results/mini").mainEntity.id == "ro-crate/Snakefile"


def test_the_workflow_is_in_the_crate(run: Path) -> None:
    code = run / "results/mini" / ro_crate.CODE_FOLDER
    told = {p.relative_to(code) for p in code.rglob("*") if p.is_file()}
    assert told == {Path("Snakefile"), *(p.relative_to(ROOT) for p in ROOT.glob("workflow/rules/*.smk"))}
    assert all((code / p).read_bytes() == (ROOT / p).read_bytes() for p in told)


def test_two_crates_of_one_run_are_the_same_bytes(run: Path) -> None:
    first = (run / "results/mini" / ro_crate.METADATA_FILE).read_bytes()
    assert written(run) == first
    assert not list((run / "results/mini").glob("*.partial-*"))


def edited(run: Path, folder: Path, name: str, **changes: Any) -> job_record.Record:
    """A copy of the run with other fields in the record of one artifact."""
    path = job_record.sidecar_path(copied(run, folder) / "results/mini" / name)
    record = job_record.read_record(path) | changes
    job_record.write_record(path, record)
    return record


def test_restored_jobs_say_so(run: Path, tmp_path: Path) -> None:
    at = "2031-01-02T03:04:05.678+00:00"
    record = edited(run, tmp_path, "report.html", restored={"at": at, "host": "elsewhere"})
    written(tmp_path)
    found = entities(tmp_path)
    action = found["#job/report.html"]
    assert f"taken from the cache at {at}" in action["description"]
    assert action["endTime"] == record["end"]  # of the job that computed it; this run had it later
    assert found["#control/report.html"]["endTime"] == found["#run"]["endTime"] == found["./"]["datePublished"] == at


def test_the_crate_tells_nothing_of_the_machine(run: Path, tmp_path: Path, issues: Issues) -> None:
    """A user's file outside the run is told by its content; folders, host and login are not told at all."""
    record = job_record.read_record(job_record.sidecar_path(run / "results/mini/report.html"))
    paper = {"path": "/secret/folder/paper.csv", "bytes": 12, "sha256": "ab" * 32}
    record = edited(
        run, tmp_path, "report.html",
        inputs=record["inputs"] | {"paper": [paper]}, cfg=record["cfg"] | {"path": "/secret/weights", "more": ["/secret/list"]},
        summary="/secret/own folder/x: 3 files, /secret/weights",
        folders=[{"index": "results/mini/x.parquet", "path": "/secret/own folder/x", "tree": "0", "watched": ""}],
        machine=record["machine"] | {"host": "secret-host"}, restored={"at": record["end"], "host": "secret-host"},
    )  # fmt: skip
    text = written(tmp_path).decode()
    found = entities(tmp_path)
    told = found["#file/abababababab/paper.csv"]
    assert (told["sha256"], told["contentSize"], told["encodingFormat"]) == ("ab" * 32, "12", "text/csv")
    assert told["@id"] in references(found["#job/report.html"]["object"])
    assert found["#job/report.html"]["description"].startswith("x: 3 files, weights; ")
    assert issues(tmp_path) == set()
    assert "secret" not in text and str(run) not in text and str(ROOT) not in text
    assert re.findall(r'[": ][/~]\w+', text) == []


def test_a_run_that_is_not_finished_has_no_crate(run: Path, tmp_path: Path) -> None:
    results = copied(run, tmp_path) / "results/mini"
    (results / ro_crate.METADATA_FILE).unlink()
    job_record.sidecar_path(results / "leaderboard.parquet").unlink()
    with pytest.raises(UserError, match=r"leaderboard\.parquet was not made: run the workflow first"):
        written(tmp_path)
    assert not (results / ro_crate.METADATA_FILE).exists()


def test_an_artifact_that_is_gone_is_named(run: Path, tmp_path: Path) -> None:
    (copied(run, tmp_path) / "results/mini/qa/train.parquet").unlink()
    with pytest.raises(UserError, match=r"qa/train\.parquet was made by merge_qa\.py and is gone"):
        written(tmp_path)


def test_an_altered_sidecar_is_refused(run: Path, tmp_path: Path) -> None:
    path = job_record.sidecar_path(copied(run, tmp_path) / "results/mini/report.html")
    text = path.read_text()
    path.unlink()
    path.write_text(text + " ")
    with pytest.raises(UserError, match=r"report\.html\.prov\.json: is not as it was written.*audit"):
        written(tmp_path)
