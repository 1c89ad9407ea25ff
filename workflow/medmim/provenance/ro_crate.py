"""A finished run as a Workflow Run RO-Crate, for others' tools: who reads the Provenance Run Crate profile reads our runs.

The run's folder is the crate: ro-crate-metadata.json tells what each job read and made, with which parameters and which
code, and ro-crate/ holds the workflow. All comes from the sidecars, hashes too: `audit` proves those. Nothing names this machine
or its folders, and the same run gives the same bytes.
"""

import ast
import hashlib
import json
import mimetypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import yaml
from rocrate.model import ComputationalWorkflow, ContextEntity
from rocrate.rocrate import ROCrate

from medmim.common import files
from medmim.common.errors import SidecarError, UserError
from medmim.provenance import code_digest, job_record
from medmim.tables import table_io

METADATA, CODE = "ro-crate-metadata.json", "ro-crate"
"""What is written into the run's folder: the description, and the folder of the workflow's own files."""

FINAL = {"leaderboard": "leaderboard.parquet", "report": "report.html"}
"""What a run is for: without these it is not finished."""

CRATE = "1.1"  # the version that the profiles below build on
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
PROFILES = {
    "Process Run Crate": "https://w3id.org/ro/wfrun/process/0.5",
    "Workflow Run Crate": "https://w3id.org/ro/wfrun/workflow/0.5",
    "Provenance Run Crate": "https://w3id.org/ro/wfrun/provenance/0.5",
    "Workflow RO-Crate": "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
}
FORMATS = {".parquet": "application/vnd.apache.parquet", ".smk": "text/plain", "": "text/plain"}
TYPES = {bool: "Boolean", int: "Integer", float: "Float"}
DONE = "http://schema.org/CompletedActionStatus"


def write(results: Path) -> tuple[int, int]:
    """Describe the run below `results`, the paths in whose sidecars are relative to the present folder.

    Returns the number of jobs and of files. Raises UserError where the run is not finished, an artifact is gone or a sidecar
    was altered.
    """
    records = _records(results)
    root = code_digest.WORKFLOW.parent
    code = files.partial(results / CODE)
    files.remove(code)
    try:
        for source in (root / "Snakefile", *sorted((code_digest.WORKFLOW / "rules").glob("*.smk"))):
            target = code / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        files.put(code, results / CODE)
    finally:
        files.remove(code)
    crate = _Crate(results, records, yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))).crate
    told = crate.metadata.generate()
    told["@graph"] = [{k: _single(v) for k, v in entity.items() if v != []} for entity in told["@graph"]]
    with files.whole(results / METADATA) as temporary:
        temporary.write_text(json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(records), len(crate.get_by_type("File"))


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _records(results: Path) -> list[job_record.Record]:
    """The record of every job, each after those whose outputs it read."""
    found: dict[str, job_record.Record] = {}
    for sidecar in job_record.sidecars(results):
        try:
            record = job_record.read(sidecar)
        except SidecarError as error:
            raise UserError(f"{error}; audit says what else was altered") from error
        found |= {output["path"]: record for output in job_record.outputs(record)}
    for name in FINAL.values():
        if not job_record.sidecar(results / name).exists():
            raise UserError(f"{results / name} was not made: run the workflow first")
    for path, record in found.items():
        if not Path(path).is_file():
            raise UserError(f"{path} was made by {record['program']} and is gone: run the workflow again")
    ordered: dict[str, job_record.Record] = {}

    def visit(record: job_record.Record) -> None:
        name = _name(record)
        if name not in ordered:
            for entry in job_record.inputs(record):
                if entry["path"] in found:
                    visit(found[entry["path"]])
            ordered[name] = record

    for path in sorted(found):
        visit(found[path])
    return list(ordered.values())


def _name(record: job_record.Record) -> str:
    """The path of a job's first output: it names the job within its run."""
    return min(output["path"] for output in job_record.outputs(record))


def _id(text: str) -> str:
    """An @id must be a valid URI."""
    return quote(text, safe="#/:")


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and PurePosixPath(value).is_absolute()


def _plain(value: Any) -> Any:
    """A setting without this machine's folders."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return PurePosixPath(value).name if _is_path(value) else value


def _paths(value: Any) -> Iterator[str]:
    """All absolute paths among settings."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _paths(part)
    elif _is_path(value):
        yield value


def _summary(record: job_record.Record) -> str:
    """What the job said of its work, without this machine's folders."""
    told = str(record["summary"])
    for path in sorted(_paths([record["cfg"], record["options"], record["folders"]]), key=len, reverse=True):
        told = told.replace(path, PurePosixPath(path).name)
    return told


def _format(path: str) -> str:
    return FORMATS.get(PurePosixPath(path).suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; lists and null as JSON text."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            value = _plain(value)
            yield above + name, value if isinstance(value, str | bool | int | float) else json.dumps(value)


class _Crate:
    """Builds `crate` from the records of a run."""

    def __init__(self, results: Path, records: list[job_record.Record], citation: dict[str, Any]) -> None:
        self.results = results
        self.crate = ROCrate(version=CRATE)
        self.crate.metadata.extra_contexts.append(TERMS)
        self.sources: dict[str, ContextEntity] = {}  # the parameter by which each path left its job
        self._root(records, citation)
        self.workflow = self._workflow(records)
        engine = self._package("snakemake", code_digest.HERE.locked["snakemake"])
        whole = self._add("#run", "CreateAction", name="The run", description="All jobs of the run", **self._times(records))
        whole["instrument"] = self.workflow
        organize = self._add("#organize", "OrganizeAction", name="Snakemake's work", instrument=engine, result=whole)
        self.crate.root_dataset.append_to("mentions", [whole, organize])
        for record in records:
            organize.append_to("object", self._job(record))
        for name, path in FINAL.items():
            made = self._add(f"#result/{name}", "FormalParameter", name=name, additionalType="File")
            self._once(self.workflow, "output", made)
            self._connect(self.sources[path], made, self.workflow)
            self._once(self._get(path), "exampleOfWork", made)
            whole.append_to("result", self._get(path))

    def _add(self, identifier: str, kind: str | list[str], **properties: Any) -> ContextEntity:
        """The entity of that name, made if there is none."""
        found = self._get(identifier)
        return found or self.crate.add(ContextEntity(self.crate, _id(identifier), {"@type": kind, **properties}))

    def _get(self, identifier: str) -> Any:
        return self.crate.get(_id(identifier))

    def _place(self, path: str) -> Path:
        """A recorded path, from the run's folder."""
        return Path(os.path.relpath(path, self.results))

    def _once(self, entity: ContextEntity, key: str, value: ContextEntity) -> None:
        """Append to a property what it does not have yet."""
        if {"@id": value.id} not in entity.properties().get(key, []):
            entity.append_to(key, value)

    def _times(self, records: list[job_record.Record]) -> dict[str, str]:
        """When the first of some jobs began and the last ended in this run."""
        here = [(r["restored"]["at"],) * 2 if "restored" in r else (r["start"], r["end"]) for r in records]
        return {"startTime": min(t for t, _ in here), "endTime": max(t for _, t in here)}

    def _root(self, records: list[job_record.Record], citation: dict[str, Any]) -> None:
        root = self.crate.root_dataset
        self.crate.name = f"Med-MIM run {self.results.resolve().name}"
        self.crate.description = (
            f"A run of {citation['title']}: {len(records)} jobs from the sources to the report, each with its inputs, outputs,"
            " parameters and code. The licence is the pipeline's; sources, models and the authors' release keep their own."
        )
        self.crate.datePublished = self._times(records)["endTime"]
        licence = citation["license"]
        self.crate.license = self._add(f"https://spdx.org/licenses/{licence}", "CreativeWork", name=licence)
        for author in citation["authors"]:
            name = author.get("name") or f"{author['given-names']} {author['family-names']}"
            kind = "Organization" if "name" in author else "Person"
            self._once(root, "author", self._add(f"#author/{name.replace(' ', '-')}", kind, name=name))
        for name, url in PROFILES.items():
            profile = self._add(url, "CreativeWork", name=name, version=url.rsplit("/", 1)[1])
            self._once(root, "conformsTo", profile)
        conforms = [f"https://w3id.org/ro/crate/{CRATE}", PROFILES["Workflow RO-Crate"]]
        self.crate.metadata["conformsTo"] = [{"@id": url} for url in conforms]

    def _workflow(self, records: list[job_record.Record]) -> ComputationalWorkflow:
        """The Snakefile and its rules; its version is the commits that jobs ran from."""
        workflow: ComputationalWorkflow | None = None
        for path in sorted(p for p in (self.results / CODE).rglob("*") if p.is_file()):
            place = path.relative_to(self.results).as_posix()
            if path.name == "Snakefile":
                version = ", ".join(sorted({r["git"]["commit"] or "unknown" for r in records}))
                workflow = self.crate.add_workflow(
                    dest_path=place, main=True, lang="snakemake", lang_version=code_digest.HERE.locked["snakemake"],
                    properties={"@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"], "version": version},
                )  # fmt: skip
            self._file(place, path.stat().st_size, files.sha256(path))
        assert workflow is not None
        workflow["name"], workflow["license"] = "Med-MIM", self.crate.license
        workflow["description"] = "As it stood when this was written; what each job ran is told by the digest of its code"
        return workflow

    def _package(self, name: str, version: str) -> ContextEntity:
        url = f"https://pypi.org/project/{name}/{version}/"
        return self._add(url, "SoftwareApplication", name=name, softwareVersion=version, url=url)

    def _file(self, path: str, size: int, sha256: str) -> Any:
        told = {"name": path, "encodingFormat": _format(path), "contentSize": str(size), "sha256": sha256}
        file = self._get(path) or self.crate.add_file(dest_path=path)
        for key, value in told.items():
            file[key] = value
        return file

    def _data(self, entry: dict[str, Any]) -> Any:
        """The file of an input or output; the folder, where it is an index that stands for one."""
        path = self._place(entry["path"])
        if ".." in path.parts:  # the user's own file: told by its content, not by where it lies
            told = {"name": path.name, "contentSize": str(entry["bytes"]), "sha256": entry["sha256"]}
            told["description"] = "A file of the user's, not in this folder"
            found = self._add(f"#file/{entry['sha256'][:12]}/{path.name}", "File", encodingFormat=_format(path.name), **told)
            self._once(self.crate.root_dataset, "hasPart", found)
            return found
        place = path.parent.as_posix() + "/"
        file = self._get(path.as_posix()) or self._file(path.as_posix(), entry["bytes"], entry["sha256"])
        if path.name != files.INDEX:
            return file
        if self._get(place) is None:
            sizes = table_io.read(self.results / path, "files", ["bytes"])["bytes"].to_pylist()
            folder = self.crate.add_dataset(dest_path=place, properties={"name": place, "hasPart": [file]})
            folder["description"] = f"{len(sizes)} files, {sum(sizes)} bytes; {files.INDEX} has the path and sha256 of each"
        return self._get(place)

    def _parameter(self, tool: ContextEntity, way: str, identifier: str, name: str, kind: str) -> ContextEntity:
        """A formal parameter of a tool; `kind` is added to its types."""
        found = self._add(f"#{identifier}", "FormalParameter", name=name, additionalType=kind)
        kinds = found["additionalType"]
        if kind not in (kinds if isinstance(kinds, list) else [kinds]):
            found.append_to("additionalType", kind)
        self._once(tool, way, found)
        return found

    def _connect(self, source: ContextEntity, target: ContextEntity, owner: Any) -> None:
        identifier = f"#connection/{source.id[1:]}:{target.id[1:]}"
        link = self._add(identifier, "ParameterConnection", sourceParameter=source, targetParameter=target)
        self._once(owner, "connection", link)

    def _tool(self, record: job_record.Record) -> ContextEntity:
        """A program as it was: its code by digest, the packages it used."""
        program, code = record["program"], record["code"]
        identifier = f"#{program}/{code['sha256'][:12]}"
        if (found := self._get(identifier)) is None:
            found = self._add(identifier, "SoftwareSourceCode", name=program, version=code["sha256"])
            found["description"] = f"{len(code['modules'])} modules; the version is the sha256 of their code and packages"
            packages = [self._package(name, version) for name, version in code["packages"].items()]
            found["softwareRequirements"] = packages
            self.workflow.append_to("hasPart", found)
        return found

    def _step(self, program: str, tool: ContextEntity) -> ContextEntity:
        found = self._get(identifier := f"#step/{program}")
        if found is None:
            source = code_digest.WORKFLOW / "scripts" / program
            doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) if source.is_file() else None
            position = len(self.workflow.properties().get("step", [])) + 1
            found = self._add(identifier, "HowToStep", name=program.removesuffix(".py"), position=position)
            found["description"] = (doc or program).splitlines()[0]
            self.workflow.append_to("step", found)
        self._once(found, "workExample", tool)
        return found

    def _job(self, record: job_record.Record) -> ContextEntity:
        """The action of one job and all it refers to; returns the action of Snakemake that ran it."""
        program, name = record["program"], self._place(_name(record)).as_posix()
        tool = self._tool(record)
        step = self._step(program, tool)
        told = _summary(record)
        if restored := record.get("restored"):
            told += f"; taken from the cache at {restored['at']}, computed at the times given"
        if commit := record["git"]["commit"]:
            told += f"; commit {commit}{'' if record['git']['clean'] else ', with changes not committed'}"
        action = self._add(f"#job/{name}", "CreateAction", name=f"{program} made {name}", description=told, instrument=tool)
        self.crate.root_dataset.append_to("mentions", action)
        for key, value in {
            "identifier": record["key"], "startTime": record["start"], "endTime": record["end"], "actionStatus": DONE,
            "object": [], "result": [],
        }.items():  # fmt: skip
            action[key] = value
        for option, entries in record["inputs"].items():
            for entry in entries:
                data = self._data(entry)
                kind = "Dataset" if data.type == "Dataset" else "File"
                parameter = self._parameter(tool, "input", f"input/{program}/{option}", option, kind)
                self._once(data, "exampleOfWork", parameter)
                self._once(action, "object", data)
                place = self._place(entry["path"]).as_posix()
                if place in self.sources:
                    self._connect(self.sources[place], parameter, step)
        for setting, value in _flat(record["cfg"] | record["options"]):
            kind = TYPES.get(type(value), "Text")
            parameter = self._parameter(tool, "input", f"setting/{program}/{setting}", setting, kind)
            short = hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
            identifier = f"#value/{program}/{setting}/{short}"
            action.append_to("object", self._add(identifier, "PropertyValue", name=setting, value=value, exampleOfWork=parameter))
        for option, entry in record["outputs"].items():
            data = self._data(entry)
            kind = "Dataset" if data.type == "Dataset" else "File"
            parameter = self._parameter(tool, "output", f"output/{program}/{option}", option, kind)
            self._once(data, "exampleOfWork", parameter)
            action.append_to("result", data)
            self.sources[self._place(entry["path"]).as_posix()] = parameter
        memory = self._add(f"#memory/{name}", "PropertyValue", name="peak memory", value=record["peak_memory_bytes"])
        memory["unitCode"], memory["propertyID"] = "https://qudt.org/vocab/unit/BYTE", "peak_memory_bytes"
        action["resourceUsage"] = memory
        ended = restored["at"] if restored else record["end"]
        return self._add(
            f"#control/{name}", "ControlAction", name=f"step of {name}", instrument=step, object=action, endTime=ended
        )
