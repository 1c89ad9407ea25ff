"""From a number back to the raw files: the jobs behind a cell of the leaderboard, and all a run knows of one question.

Read are the sidecars on the way and single columns of tables; no image, no weights, nothing of other models. Files are named
below the run's folder. What is recorded is shown, not checked: that is the audit's work.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medmim.common.errors import SidecarError, UserError
from medmim.common.files import hash_file
from medmim.provenance import job_record
from medmim.questions.prompt import LETTERS
from medmim.questions.sets import FURTHER, SUMS
from medmim.scoring.items import METRICS

LEADERBOARD = "leaderboard.parquet"
SPLITS = ("benchmark", "train", "pretrain")
IMAGE_COLUMNS = [
    *("image_id", "source", "study_id", "day", "view", "laterality", "modality", "width", "height"),
    *("release_path", "origin_file", "origin_sha256"),
]
Row = dict[str, Any]


class RunFolder:
    """A run's folder, wherever it lies now; sidecars are read once."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; --results names the folder of a run, such as results/demo")
        self.folder = folder
        self._records: dict[str, job_record.Record | None] = {}

    def read_sidecar(self, name: str) -> job_record.Record | None:
        """The sidecar of a file, paths below the run's folder cut to names; None where there is none.

        Raises SidecarError where it is damaged or speaks of another file.
        """
        if name not in self._records:
            path = job_record.sidecar_path(self.folder / name)
            self._records[name] = self._relativize_paths(name, job_record.read_record(path)) if path.is_file() else None
        return self._records[name]

    def _relativize_paths(self, name: str, record: job_record.Record) -> job_record.Record:
        output_names = [str(entry["path"]) for entry in job_record.output_files(record)]
        run_prefix = next((path.removesuffix(name) for path in output_names if f"/{path}".endswith(f"/{name}")), None)
        if run_prefix is None:
            raise SidecarError(
                f"{job_record.sidecar_path(self.folder / name)}: speaks of {', '.join(output_names)}, not of {name}"
            )
        for entry in (*job_record.input_files(record), *job_record.output_files(record)):
            entry["path"] = entry["path"].removeprefix(run_prefix)
        for folder in record["folders"]:
            folder["index"] = folder["index"].removeprefix(run_prefix)
        return record

    def find_files(self, pattern: str) -> list[str]:
        """Names of the files that fit a pattern, sorted."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))

    def read_table(self, name: str, columns: list[str] | None = None, filters: list[Any] | None = None) -> pa.Table:
        """Columns of a table, only those rows that fit `filters`. UserError where it is absent or another table."""
        path = self.folder / name
        try:
            return pq.read_table(path, columns=columns, filters=filters, memory_map=True)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file: is the run finished?") from None
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: not the table it should be: {error}") from error

    def read_rows(self, name: str, columns: list[str] | None = None, filters: list[Any] | None = None) -> list[Row]:
        """`read_table` as rows."""
        rows: list[Row] = self.read_table(name, columns, filters).to_pylist()
        return rows

    def questions_table(self, split: str) -> str:
        """Name of the table of a split's questions; of the benchmark, that which was scored."""
        record = self.read_sidecar(LEADERBOARD) if split == "benchmark" else None
        return str(record["inputs"]["qa"][0]["path"]) if record else f"qa/{split}.parquet"

    def raw_index(self, source: str) -> str:
        """Name of the index of a source's files, as its images table records it."""
        record = self.read_sidecar(f"images/{source}.images.parquet")
        if record is None:
            raise UserError(f"{self.folder}/images/{source}.images.parquet has no sidecar: nothing says what it was made of")
        return str(record["inputs"]["raw"][0]["path"])


def _check_known(field: str, value: str, allowed_values: Iterable[str]) -> None:
    """UserError with the nearest right names where `value` is not one."""
    allowed_values = sorted(allowed_values)
    if value not in allowed_values:
        close_matches = difflib.get_close_matches(value, allowed_values, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close_matches)}?" if close_matches else f"there are {', '.join(allowed_values)}"
        raise UserError(f"no {field} {value} in the leaderboard: {hint}")


def trace_cell(results: Path, model: str, set_: str, metric: str, *, kind: str | None = None, condition: str = "plain") -> Row:
    """A cell of the leaderboard and what it rests on: {cells, sources, sets, items, nodes}.

    cells: its rows (one a kind) on all questions. sources: questions of each. items: the scores it is a mean of, those subtracted
    included (rates: items of accuracy, by their status; of a rotated question one for each rotation). nodes: by file name, from
    the leaderboard down, the job that made it and `inputs`, those files it rests on with the sha256 they were read with. Raises
    UserError, SidecarError.
    """
    run = RunFolder(results)
    board = run.read_rows(LEADERBOARD)
    record = run.read_sidecar(LEADERBOARD)
    if record is None or hash_file(results / LEADERBOARD) != record["outputs"]["leaderboard"]["sha256"]:
        raise UserError(f"{results / LEADERBOARD}: is not what its sidecar speaks of; `snakemake audit` tells all that differs")
    criteria = {"model": model, "set": set_, "condition": condition, **({"kind": kind} if kind else {})}
    board = [row for row in board if row["part"] == "all"]
    cells = _select_cells(board, metric, **criteria)
    sets = _find_member_sets(board, set_)
    kinds = sorted({row["kind"] for row in cells})
    question_filters = [("set", "in", sets), ("kind", "in", kinds)]
    sources = Counter(row["source"] for row in run.read_rows(run.questions_table("benchmark"), ["source"], question_filters))
    tables = {PurePosixPath(entry["path"]).stem: entry["path"] for entry in record["inputs"]["answers"]}
    # Baselines have no answers: they rest on the questions alone.
    sides = {side for side in _find_sides(record, model, metric, condition) if side[0] in tables}
    items = _collect_items(run, tables, sides, metric, question_filters)
    nodes: dict[str, Row] = {}
    _add_node(run, LEADERBOARD, "", sides, set(sources), nodes)
    return {"cells": cells, "sets": sets, "sources": dict(sorted(sources.items())), "items": items, "nodes": nodes}


def _select_cells(board: list[Row], metric: str, **criteria: str) -> list[Row]:
    """Rows of a metric that meet the criteria. UserError with the nearest right names where there is none."""
    for field, value in (*criteria.items(), ("metric", metric)):
        _check_known(field, value, {row[field] for row in board})
    matching_rows = [row for row in board if all(row[field] == value for field, value in criteria.items())]
    cells = [row for row in matching_rows if row["metric"] == metric]
    if not cells:
        present_metrics = ", ".join(sorted({row["metric"] for row in matching_rows})) or "no cell at all"
        raise UserError(f"no {metric} of {', '.join(criteria.values())}: there is {present_metrics}")
    return cells


def _find_member_sets(board: list[Row], set_: str) -> list[str]:
    """The sets of a sum; of a set, itself."""
    if set_ not in SUMS:
        return [set_]
    separate_abilities = ("held_out", FURTHER)
    members = {row["set"] for row in board if set_ == (row["ability"] if row["ability"] in separate_abilities else "held_in")}
    return sorted(members - SUMS.keys())


def _find_sides(record: job_record.Record, model: str, metric: str, condition: str) -> set[tuple[str, str]]:
    """(model, condition) of the scores that a metric is a mean of, those subtracted included."""
    subtrahend = metric.partition("_minus_")[2]
    sides = {(model, condition)}
    if subtrahend:
        sides.add((record["cfg"]["pairs"][model], condition) if subtrahend == "base" else (model, subtrahend))
    return sides


def _collect_items(
    run: RunFolder, tables: Mapping[str, str], sides: set[tuple[str, str]], metric: str, question_filters: list[Any]
) -> list[Row]:
    """Scores of single questions that a metric is a mean of. tables: the answers table of each model."""
    base_metric, _, subtrahend = metric.partition("_minus_")
    letter = base_metric.removeprefix("recall_") if base_metric.startswith("recall_") else ""
    metric_names = ["accuracy"] if letter else [base_metric]
    if base_metric.endswith("_rate"):  # rates are told with the first metric of each kind
        metric_names = [metrics[0] for metrics in METRICS.values()]
    items: list[Row] = []
    for name, condition in sorted(sides):
        item_filters = [*question_filters, ("condition", "=", condition), ("metric", "in", metric_names)]
        items += run.read_rows(tables[name], ["qa_id", "model", "condition", "rotation", "value", "status", "read"], item_filters)
    if letter:
        gold_filters = [*question_filters, ("answer_index", "=", LETTERS.index(letter))]
        gold_ids = {row["qa_id"] for row in run.read_rows(run.questions_table("benchmark"), ["qa_id"], gold_filters)}
        return [item for item in items if item["qa_id"] in gold_ids]
    if subtrahend:  # a condition may ask fewer questions
        common_ids = set.intersection(*({i["qa_id"] for i in items if (i["model"], i["condition"]) == side} for side in sides))
        return [item for item in items if item["qa_id"] in common_ids]
    return items


def _add_node(
    run: RunFolder, name: str, read_hash: str, sides: set[tuple[str, str]], sources: set[str], nodes: dict[str, Row]
) -> None:
    """Add a file and all it rests on. read: the hash its reader saw; sides: (model, condition) whose replies count."""
    if name in nodes:
        return
    record = run.read_sidecar(name)
    if record is None:
        nodes[name] = {"sha256": read_hash, "program": None, "inputs": {}}
        return
    output_record = next(entry for entry in job_record.output_files(record) if entry["path"] == name)
    folder = next((f for f in record["folders"] if f["index"] == name), None)
    nodes[name] = {
        "sha256": output_record["sha256"],
        "bytes": output_record["bytes"],
        "program": record["program"],
        "summary": record["summary"],
        "code": record["code"]["sha256"],
        **record["git"],
        "host": record["machine"]["host"],
        "end": record["end"],
        "restored": record.get("restored"),
        "folder": folder and {"path": folder["path"], "tree": folder["tree"], "files": run.read_table(name, ["bytes"]).num_rows},
        "inputs": _list_direct_inputs(run, name, record, sides, sources),
    }
    for file, input_hash in nodes[name]["inputs"].items():
        _add_node(run, file, input_hash, sides, sources, nodes)


def _list_direct_inputs(
    run: RunFolder, name: str, record: job_record.Record, sides: set[tuple[str, str]], sources: set[str]
) -> dict[str, str]:
    """Inputs that a file rests on, with the sha256 they were read with."""
    models = {model for model, _ in sides}
    selected_stems = {"answers": models, "predictions": models} | _select_input_stems(run, name, record, sides, sources)
    return {
        entry["path"]: entry["sha256"]
        for option, entries in record["inputs"].items()
        for entry in entries
        if option not in selected_stems or PurePosixPath(entry["path"]).stem in selected_stems[option]
    }


def _select_input_stems(
    run: RunFolder, name: str, record: job_record.Record, sides: set[tuple[str, str]], sources: set[str]
) -> dict[str, set[str]]:
    """By option of a program, names of the inputs that count; options that are not named count whole."""
    program, inputs = record["program"], record["inputs"]
    if program == "leaderboard.py":  # training and its copies make the clean part, and cells are told on all questions
        return {"train": set(), "copies": set()}
    if program == "merge_qa.py":  # copies of the benchmark's images are left out of the other splits
        qa_stems = {"qa": _find_shown_sources(run, [name], sources)}
        return qa_stems | ({"copies": set()} if PurePosixPath(name).stem == "benchmark" else {})
    if program == "join_benchmark.py":
        further = {PurePosixPath(entry["path"]).stem for entry in inputs["heldout"]}
        return {"heldout": sources, "benchmark": {"benchmark"} if sources - further else set()}
    if "images" not in inputs or "qa" not in inputs:
        return {}
    conditions = {condition for model, condition in sides if model == record["cfg"].get("model")}
    if "other_patient" in conditions:  # whose images may be of any source
        return {}
    if conditions == {"blind"}:  # such replies rest on no image
        return {"images": set()}
    shown_sources = _find_shown_sources(run, [entry["path"] for entry in inputs["qa"]], sources)
    return {"images": {f"{source}.images" for source in shown_sources}}


def _find_shown_sources(run: RunFolder, qa_files: Iterable[str], sources: set[str]) -> set[str]:
    """Sources of the questions of some tables; of those that were scored, only the cell's own."""
    scored = {run.questions_table("benchmark"), "qa/benchmark.parquet"}
    shown_sources: set[str] = set()
    for file in qa_files:
        shown_sources |= sources if file in scored else set(run.read_table(file, ["source"])[0].unique().to_pylist())
    return shown_sources


def trace_question(results: Path, qa_id: str) -> Row:
    """All a run knows of a question: {question, splits, findings, images, replies, shards}.

    qa_id: its first digits will do, 6 at least. `agrees` says whether an image's file has the hash in the index of raw files
    that its source recorded; None inside an archive, of which the index knows the whole. Raises UserError, SidecarError.
    """
    run = RunFolder(results)
    id_prefix = qa_id.strip().lower()
    if len(id_prefix) < 6:
        raise UserError(f"qa id {qa_id!r}: give 6 of its digits at least")
    ids: dict[str, list[str]] = {}
    for split in SPLITS:
        if (results / run.questions_table(split)).is_file():
            for question_id in run.read_table(run.questions_table(split), ["qa_id"])[0].to_pylist():
                ids.setdefault(question_id, []).append(split)
    matching_ids = sorted(i for i in ids if i.startswith(id_prefix))
    if len(matching_ids) != 1:
        ids_by_prefix = {i[: len(id_prefix)]: i for i in ids}
        close_matches = matching_ids[:5] or [ids_by_prefix[head] for head in difflib.get_close_matches(id_prefix, ids_by_prefix)]
        problem = f"stands for {len(matching_ids)} questions" if matching_ids else f"is in no table of {results / 'qa'}"
        hint = (
            f"did you mean {' or '.join(close_matches)}?"
            if close_matches
            else "none is near it"
            if ids
            else "is the run finished?"
        )
        raise UserError(f"qa id {id_prefix} {problem}: {hint}")
    name, splits = matching_ids[0], ids[matching_ids[0]]
    question_row = run.read_rows(run.questions_table(splits[0]), None, [("qa_id", "=", name)])[0]
    question_row.pop("split")
    return {
        "question": question_row,
        "splits": splits,
        "findings": _find_findings(run, question_row["findings"]),
        "images": _find_images(run, question_row["image_ids"], question_row["source"]),
        "replies": _find_replies(run, name) if "benchmark" in splits else [],
        "shards": _find_shards(run, name, splits),
    }


def _read_raw_hashes(run: RunFolder, source: str, files: Iterable[str]) -> dict[str, str]:
    """Hashes of raw files of a source, as its index has them; archives for their members."""
    archive_paths = sorted({file.partition("!")[0] for file in files})
    return {
        row["path"]: row["sha256"]
        for row in run.read_rows(run.raw_index(source), ["path", "sha256"], [("path", "in", archive_paths)])
    }


def _find_findings(run: RunFolder, ids: list[str]) -> list[Row]:
    """Findings in order; of one that no table has, only the id."""
    rows_by_id: dict[str, Row] = {}
    for source in sorted({i.rpartition("/")[0] for i in ids}):
        rows = run.read_rows(f"images/{source}.findings.parquet", None, [("finding_id", "in", sorted(set(ids)))])
        index = _read_raw_hashes(run, source, [row["origin_file"] for row in rows]) if rows else {}
        rows_by_id |= {row["finding_id"]: row | {"file_sha256": index.get(row["origin_file"].partition("!")[0])} for row in rows}
    return [rows_by_id.get(i, {"finding_id": i}) for i in ids]


def _find_images(run: RunFolder, references: list[str], source: str) -> list[Row]:
    """Images in order, looked up in their source's table first; of one that no table has, only the reference."""
    rows_by_reference: dict[str, Row] = {}
    for name in sorted(run.find_files("images/*.images.parquet"), key=lambda n: n != f"images/{source}.images.parquet"):
        missing = sorted({r.removeprefix("release/") for r in references if r not in rows_by_reference})
        if not missing:
            break
        rows = run.read_rows(name, IMAGE_COLUMNS, [[("image_id", "in", missing)], [("release_path", "in", missing)]])
        index = _read_raw_hashes(run, rows[0]["source"], [row["origin_file"] for row in rows]) if rows else {}
        for row in rows:
            path, _, member = row["origin_file"].partition("!")
            row |= {"index": run.raw_index(row["source"]), "index_sha256": index.get(path)}
            row["agrees"] = None if member and path in index else index.get(path) == row["origin_sha256"]
            for reference in (row["image_id"], f"release/{row['release_path']}"):
                rows_by_reference.setdefault(reference, row)  # of files with the same pixels, the first answers
    return [{"reference": r} | rows_by_reference.get(r, {}) for r in references]


def _find_replies(run: RunFolder, qa_id: str) -> list[Row]:
    """Replies of all models under all conditions; the scores stand with the first one that has them."""
    where = [("qa_id", "=", qa_id)]
    scores: dict[tuple[str, str], list[Row]] = {}
    for name in run.find_files("scores/*.parquet"):
        for row in run.read_rows(name, ["model", "condition", "metric", "value", "status", "read"], where):
            scores.setdefault((row.pop("model"), row.pop("condition")), []).append(row)
    replies = [
        row | {"file": name} for name in run.find_files("predictions/*.parquet") for row in run.read_rows(name, None, where)
    ]
    return [row | {"scores": scores.pop((row["model"], row["condition"]), [])} for row in replies]


def _find_shards(run: RunFolder, qa_id: str, splits: list[str]) -> list[Row]:
    """Where a training question stands, and the models trained on it."""
    placements = []
    model_inputs = {
        name: job_record.input_files(record)
        for name in run.find_files("models/*/files.parquet")
        if (record := run.read_sidecar(name))
    }
    for name in [n for split in splits if split != "benchmark" for n in run.find_files(f"shards/*/{split}.samples.parquet")]:
        for row, sample in enumerate(run.read_rows(name, ["qa_id", "length"])):
            if sample["qa_id"] == qa_id:
                models = [
                    PurePosixPath(m).parent.name for m, inputs in model_inputs.items() if name in [e["path"] for e in inputs]
                ]
                placements.append({"file": name, "row": row, "length": sample["length"], "models": models})
    return placements
