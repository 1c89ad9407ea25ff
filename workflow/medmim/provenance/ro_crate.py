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
from medmim.common.errors import RecordVersionError, SidecarError, UserError
from medmim.provenance import code_digest, job_record
from medmim.tables import table_io

METADATA_FILE, CODE_FOLDER = "ro-crate-metadata.json", "ro-crate"
"""What is written into the run's folder: the description, and the folder of the workflow's own files."""

FINAL_OUTPUTS = {"leaderboard": "leaderboard.parquet", "report": "report.html"}
"""What a run is for: without these it is not finished."""

CRATE_VERSION = "1.1"  # the version that the profiles below build on
TERMS_URL = "https://w3id.org/ro/terms/workflow-run/context"
PROFILES = {
    "Process Run Crate": "https://w3id.org/ro/wfrun/process/0.5",
    "Workflow Run Crate": "https://w3id.org/ro/wfrun/workflow/0.5",
    "Provenance Run Crate": "https://w3id.org/ro/wfrun/provenance/0.5",
    "Workflow RO-Crate": "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
}
MEDIA_TYPES = {".parquet": "application/vnd.apache.parquet", ".smk": "text/plain", "": "text/plain"}
PARAMETER_TYPES = {bool: "Boolean", int: "Integer", float: "Float"}
COMPLETED_STATUS = "http://schema.org/CompletedActionStatus"


def write_crate(results: Path) -> tuple[int, int]:
    """Describe the run below `results`, the paths in whose sidecars are relative to the present folder.

    Returns the number of jobs and of files. Raises UserError where the run is not finished, an artifact is gone or a sidecar
    was altered.
    """
    records = _read_records(results)
    root = code_digest.WORKFLOW.parent
    code = files.temporary_path(results / CODE_FOLDER)
    files.remove_path(code)
    try:
        for source in (root / "Snakefile", *sorted((code_digest.WORKFLOW / "rules").glob("*.smk"))):
            target = code / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        files.replace_path(code, results / CODE_FOLDER)
    finally:
        files.remove_path(code)
    crate = _CrateBuilder(results, records, yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))).crate
    metadata = crate.metadata.generate()
    metadata["@graph"] = [{k: _unwrap_single(v) for k, v in entity.items() if v != []} for entity in metadata["@graph"]]
    with files.write_atomically(results / METADATA_FILE) as temporary:
        temporary.write_text(json.dumps(metadata, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(records), len(crate.get_by_type("File"))


def _unwrap_single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _read_records(results: Path) -> list[job_record.Record]:
    """The record of every job, each after those whose outputs it read."""
    records_by_path: dict[str, job_record.Record] = {}
    for sidecar in job_record.find_sidecars(results):
        try:
            record = job_record.read_record(sidecar)
        except RecordVersionError as error:
            raise UserError(str(error)) from error
        except SidecarError as error:
            raise UserError(f"{error}; audit says what else was altered") from error
        records_by_path |= {output["path"]: record for output in job_record.output_files(record)}
    for name in FINAL_OUTPUTS.values():
        if not job_record.sidecar_path(results / name).exists():
            raise UserError(f"{results / name} was not made: run the workflow first")
    for path, record in records_by_path.items():
        if not Path(path).is_file():
            raise UserError(f"{path} was made by {record['program']} and is gone: run the workflow again")
    ordered: dict[str, job_record.Record] = {}

    def add_in_order(record: job_record.Record) -> None:
        name = _job_name(record)
        if name not in ordered:
            for entry in job_record.input_files(record):
                if entry["path"] in records_by_path:
                    add_in_order(records_by_path[entry["path"]])
            ordered[name] = record

    for path in sorted(records_by_path):
        add_in_order(records_by_path[path])
    return list(ordered.values())


def _job_name(record: job_record.Record) -> str:
    """The path of a job's first output: it names the job within its run."""
    return min(output["path"] for output in job_record.output_files(record))


def _entity_id(text: str) -> str:
    """An @id must be a valid URI: one # at most begins its fragment."""
    path, mark, fragment = text.partition("#")
    return quote(path, safe="/:") + mark + quote(fragment, safe="/:")


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and PurePosixPath(value).is_absolute()


def _without_folders(value: Any) -> Any:
    """A setting without this machine's folders."""
    if isinstance(value, list):
        return [_without_folders(v) for v in value]
    return PurePosixPath(value).name if _is_path(value) else value


def _iter_absolute_paths(value: Any) -> Iterator[str]:
    """All absolute paths among settings."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _iter_absolute_paths(item)
    elif _is_path(value):
        yield value


def _clean_summary(record: job_record.Record) -> str:
    """What the job said of its work, without this machine's folders."""
    text = str(record["summary"])
    for path in sorted(_iter_absolute_paths([record["cfg"], record["options"], record["folders"]]), key=len, reverse=True):
        text = text.replace(path, PurePosixPath(path).name)
    return text


def _media_type(path: str) -> str:
    return MEDIA_TYPES.get(PurePosixPath(path).suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"


def _flatten_settings(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; lists and null as JSON text."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten_settings(value, f"{prefix}{name}.")
        else:
            value = _without_folders(value)
            yield prefix + name, value if isinstance(value, str | bool | int | float) else json.dumps(value)


class _CrateBuilder:
    """Builds `crate` from the records of a run."""

    def __init__(self, results: Path, records: list[job_record.Record], citation: dict[str, Any]) -> None:
        self.results = results
        self.crate = ROCrate(version=CRATE_VERSION)
        self.crate.metadata.extra_contexts.append(TERMS_URL)
        self.sources: dict[str, ContextEntity] = {}  # the parameter by which each path left its job
        self._describe_root(records, citation)
        self.workflow = self._add_workflow(records)
        engine = self._add_package("snakemake", code_digest.THIS_CHECKOUT.locked_versions["snakemake"])
        run_action = self._get_or_add(
            "#run", "CreateAction", name="The run", description="All jobs of the run", **self._time_span(records)
        )
        run_action["instrument"] = self.workflow
        organize = self._get_or_add("#organize", "OrganizeAction", name="Snakemake's work", instrument=engine, result=run_action)
        self.crate.root_dataset.append_to("mentions", [run_action, organize])
        for record in records:
            organize.append_to("object", self._add_job(record))
        for name, path in FINAL_OUTPUTS.items():
            result_parameter = self._get_or_add(f"#result/{name}", "FormalParameter", name=name, additionalType="File")
            self._append_once(self.workflow, "output", result_parameter)
            self._add_connection(self.sources[path], result_parameter, self.workflow)
            self._append_once(self._get_entity(path), "exampleOfWork", result_parameter)
            run_action.append_to("result", self._get_entity(path))

    def _get_or_add(self, identifier: str, kind: str | list[str], **properties: Any) -> ContextEntity:
        """The entity of that name, made if there is none."""
        entity = self._get_entity(identifier)
        return entity or self.crate.add(ContextEntity(self.crate, _entity_id(identifier), {"@type": kind, **properties}))

    def _get_entity(self, identifier: str) -> Any:
        return self.crate.get(_entity_id(identifier))

    def _run_relative_path(self, path: str) -> Path:
        """A recorded path, from the run's folder."""
        return Path(os.path.relpath(path, self.results))

    def _append_once(self, entity: ContextEntity, key: str, value: ContextEntity) -> None:
        """Append to a property what it does not have yet."""
        if {"@id": value.id} not in entity.properties().get(key, []):
            entity.append_to(key, value)

    def _time_span(self, records: list[job_record.Record]) -> dict[str, str]:
        """When the first of some jobs began and the last ended in this run."""
        time_spans = [(r["restored"]["at"],) * 2 if "restored" in r else (r["start"], r["end"]) for r in records]
        return {"startTime": min(t for t, _ in time_spans), "endTime": max(t for _, t in time_spans)}

    def _describe_root(self, records: list[job_record.Record], citation: dict[str, Any]) -> None:
        root = self.crate.root_dataset
        self.crate.name = f"Med-MIM run {self.results.resolve().name}"
        self.crate.description = (
            f"A run of {citation['title']}: {len(records)} jobs from the sources to the report, each with its inputs, outputs,"
            " parameters and code. The licence is the pipeline's; sources, models and the authors' release keep their own."
        )
        self.crate.datePublished = self._time_span(records)["endTime"]
        licence = citation["license"]
        self.crate.license = self._get_or_add(f"https://spdx.org/licenses/{licence}", "CreativeWork", name=licence)
        for author in citation["authors"]:
            name = author.get("name") or f"{author['given-names']} {author['family-names']}"
            kind = "Organization" if "name" in author else "Person"
            self._append_once(root, "author", self._get_or_add(f"#author/{name.replace(' ', '-')}", kind, name=name))
        for name, url in PROFILES.items():
            profile = self._get_or_add(url, "CreativeWork", name=name, version=url.rsplit("/", 1)[1])
            self._append_once(root, "conformsTo", profile)
        conforms = [f"https://w3id.org/ro/crate/{CRATE_VERSION}", PROFILES["Workflow RO-Crate"]]
        self.crate.metadata["conformsTo"] = [{"@id": url} for url in conforms]

    def _add_workflow(self, records: list[job_record.Record]) -> ComputationalWorkflow:
        """The Snakefile and its rules; its version is the commits that jobs ran from."""
        workflow: ComputationalWorkflow | None = None
        for path in sorted(p for p in (self.results / CODE_FOLDER).rglob("*") if p.is_file()):
            place = path.relative_to(self.results).as_posix()
            if path.name == "Snakefile":
                version = ", ".join(sorted({r["git"]["commit"] or "unknown" for r in records}))
                workflow = self.crate.add_workflow(
                    dest_path=place, main=True, lang="snakemake",
                    lang_version=code_digest.THIS_CHECKOUT.locked_versions["snakemake"],
                    properties={"@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"], "version": version},
                )  # fmt: skip
            self._add_file(place, path.stat().st_size, files.hash_file(path))
        assert workflow is not None
        workflow["name"], workflow["license"] = "Med-MIM", self.crate.license
        workflow["description"] = "As it stood when this was written; what each job ran is told by the digest of its code"
        return workflow

    def _add_package(self, name: str, version: str) -> ContextEntity:
        url = f"https://pypi.org/project/{name}/{version}/"
        return self._get_or_add(url, "SoftwareApplication", name=name, softwareVersion=version, url=url)

    def _add_file(self, path: str, size: int, sha256: str) -> Any:
        properties = {"name": path, "encodingFormat": _media_type(path), "contentSize": str(size), "sha256": sha256}
        file = self._get_entity(path) or self.crate.add_file(dest_path=path)
        for key, value in properties.items():
            file[key] = value
        return file

    def _add_data(self, entry: dict[str, Any]) -> Any:
        """The file of an input or output; the folder, where it is an index that stands for one."""
        path = self._run_relative_path(entry["path"])
        if ".." in path.parts:  # the user's own file: told by its content, not by where it lies
            properties = {"name": path.name, "contentSize": str(entry["bytes"]), "sha256": entry["sha256"]}
            properties["description"] = "A file of the user's, not in this folder"
            entity = self._get_or_add(
                f"#file/{entry['sha256'][:12]}/{path.name}", "File", encodingFormat=_media_type(path.name), **properties
            )
            self._append_once(self.crate.root_dataset, "hasPart", entity)
            return entity
        folder_path = path.parent.as_posix() + "/"
        file = self._get_entity(path.as_posix()) or self._add_file(path.as_posix(), entry["bytes"], entry["sha256"])
        if path.name != files.INDEX_NAME:
            return file
        if self._get_entity(folder_path) is None:
            sizes = table_io.read_table(self.results / path, "files", ["bytes"])["bytes"].to_pylist()
            folder = self.crate.add_dataset(dest_path=folder_path, properties={"name": folder_path, "hasPart": [file]})
            folder["description"] = f"{len(sizes)} files, {sum(sizes)} bytes; {files.INDEX_NAME} has the path and sha256 of each"
        return self._get_entity(folder_path)

    def _add_parameter(self, tool: ContextEntity, direction: str, identifier: str, name: str, kind: str) -> ContextEntity:
        """A formal parameter of a tool; `kind` is added to its types."""
        parameter = self._get_or_add(f"#{identifier}", "FormalParameter", name=name, additionalType=kind)
        kinds = parameter["additionalType"]
        if kind not in (kinds if isinstance(kinds, list) else [kinds]):
            parameter.append_to("additionalType", kind)
        self._append_once(tool, direction, parameter)
        return parameter

    def _add_connection(self, source: ContextEntity, target: ContextEntity, owner: Any) -> None:
        identifier = f"#connection/{source.id[1:]}:{target.id[1:]}"
        link = self._get_or_add(identifier, "ParameterConnection", sourceParameter=source, targetParameter=target)
        self._append_once(owner, "connection", link)

    def _add_tool(self, record: job_record.Record) -> ContextEntity:
        """A program as it was: its code by digest, the packages it used."""
        program, code = record["program"], record["code"]
        identifier = f"#{program}/{code['sha256'][:12]}"
        if (entity := self._get_entity(identifier)) is None:
            entity = self._get_or_add(identifier, "SoftwareSourceCode", name=program, version=code["sha256"])
            entity["description"] = f"{len(code['modules'])} modules; the version is the sha256 of their code and packages"
            packages = [self._add_package(name, version) for name, version in code["packages"].items()]
            entity["softwareRequirements"] = packages
            self.workflow.append_to("hasPart", entity)
        return entity

    def _add_step(self, program: str, tool: ContextEntity) -> ContextEntity:
        entity = self._get_entity(identifier := f"#step/{program}")
        if entity is None:
            source = code_digest.WORKFLOW / "scripts" / program
            doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) if source.is_file() else None
            position = len(self.workflow.properties().get("step", [])) + 1
            entity = self._get_or_add(identifier, "HowToStep", name=program.removesuffix(".py"), position=position)
            entity["description"] = (doc or program).splitlines()[0]
            self.workflow.append_to("step", entity)
        self._append_once(entity, "workExample", tool)
        return entity

    def _add_job(self, record: job_record.Record) -> ContextEntity:
        """The action of one job and all it refers to; returns the action of Snakemake that ran it."""
        program, name = record["program"], self._run_relative_path(_job_name(record)).as_posix()
        tool = self._add_tool(record)
        step = self._add_step(program, tool)
        description = _clean_summary(record)
        if restored := record.get("restored"):
            description += f"; taken from the cache at {restored['at']}, computed at the times given"
        if commit := record["git"]["commit"]:
            description += f"; commit {commit}{'' if record['git']['clean'] else ', with changes not committed'}"
        action = self._get_or_add(
            f"#job/{name}", "CreateAction", name=f"{program} made {name}", description=description, instrument=tool
        )
        self.crate.root_dataset.append_to("mentions", action)
        for key, value in {
            "identifier": record["key"], "startTime": record["start"], "endTime": record["end"], "actionStatus": COMPLETED_STATUS,
            "object": [], "result": [],
        }.items():  # fmt: skip
            action[key] = value
        for option, entries in record["inputs"].items():
            for entry in entries:
                data = self._add_data(entry)
                kind = "Dataset" if data.type == "Dataset" else "File"
                parameter = self._add_parameter(tool, "input", f"input/{program}/{option}", option, kind)
                self._append_once(data, "exampleOfWork", parameter)
                self._append_once(action, "object", data)
                place = self._run_relative_path(entry["path"]).as_posix()
                if place in self.sources:
                    self._add_connection(self.sources[place], parameter, step)
        for setting, value in _flatten_settings(record["cfg"] | record["options"]):
            kind = PARAMETER_TYPES.get(type(value), "Text")
            parameter = self._add_parameter(tool, "input", f"setting/{program}/{setting}", setting, kind)
            value_digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
            identifier = f"#value/{program}/{setting}/{value_digest}"
            action.append_to(
                "object", self._get_or_add(identifier, "PropertyValue", name=setting, value=value, exampleOfWork=parameter)
            )
        for option, entry in record["outputs"].items():
            data = self._add_data(entry)
            kind = "Dataset" if data.type == "Dataset" else "File"
            parameter = self._add_parameter(tool, "output", f"output/{program}/{option}", option, kind)
            self._append_once(data, "exampleOfWork", parameter)
            action.append_to("result", data)
            self.sources[self._run_relative_path(entry["path"]).as_posix()] = parameter
        memory = self._get_or_add(f"#memory/{name}", "PropertyValue", name="peak memory", value=record["peak_memory_bytes"])
        memory["unitCode"], memory["propertyID"] = "https://qudt.org/vocab/unit/BYTE", "peak_memory_bytes"
        action["resourceUsage"] = memory
        ended = restored["at"] if restored else record["end"]
        return self._get_or_add(
            f"#control/{name}", "ControlAction", name=f"step of {name}", instrument=step, object=action, endTime=ended
        )
