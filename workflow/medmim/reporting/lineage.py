"""From a number back to the raw files: the jobs behind a cell of the leaderboard, and all a run knows of one question.

Read are the sidecars on the way and single columns of tables; no image, no weights, nothing of other models. Files are named
below the run's folder. What is recorded is shown, not checked: that is the audit's work.
"""

import difflib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medmim.common.errors import SidecarError, UserError
from medmim.common.files import sha256
from medmim.provenance import job_record
from medmim.questions.prompt import LETTERS

LEADERBOARD = "leaderboard.parquet"
SPLITS = ("benchmark", "train", "pretrain")
IMAGE = [
    *("image_id", "source", "study_id", "day", "view", "laterality", "modality", "width", "height"),
    *("release_path", "origin_file", "origin_sha256"),
]
Row = dict[str, Any]


class Run:
    """A run's folder, wherever it lies now; sidecars are read once."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; --results names the folder of a run, such as results/demo")
        self.folder = folder
        self._records: dict[str, job_record.Record | None] = {}

    def record(self, name: str) -> job_record.Record | None:
        """The sidecar of a file, paths below the run's folder cut to names; None where there is none.

        Raises SidecarError where it is damaged or speaks of another file.
        """
        if name not in self._records:
            path = job_record.sidecar(self.folder / name)
            self._records[name] = self._named(name, job_record.read(path)) if path.is_file() else None
        return self._records[name]

    def _named(self, name: str, record: job_record.Record) -> job_record.Record:
        listed = [str(entry["path"]) for entry in job_record.outputs(record)]
        run = next((path.removesuffix(name) for path in listed if f"/{path}".endswith(f"/{name}")), None)
        if run is None:
            raise SidecarError(f"{job_record.sidecar(self.folder / name)}: speaks of {', '.join(listed)}, not of {name}")
        for entry in (*job_record.inputs(record), *job_record.outputs(record)):
            entry["path"] = entry["path"].removeprefix(run)
        for folder in record["folders"]:
            folder["index"] = folder["index"].removeprefix(run)
        return record

    def glob(self, pattern: str) -> list[str]:
        """Names of the files that fit a pattern, sorted."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))

    def table(self, name: str, columns: list[str] | None = None, where: list[Any] | None = None) -> pa.Table:
        """Columns of a table, only those rows that fit `where`. UserError where it is absent or another table."""
        path = self.folder / name
        try:
            return pq.read_table(path, columns=columns, filters=where, memory_map=True)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file: is the run finished?") from None
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: not the table it should be: {error}") from error

    def rows(self, name: str, columns: list[str] | None = None, where: list[Any] | None = None) -> list[Row]:
        """`table` as rows."""
        found: list[Row] = self.table(name, columns, where).to_pylist()
        return found

    def questions(self, split: str) -> str:
        """Name of the table of a split's questions; of the benchmark, that which was scored."""
        record = self.record(LEADERBOARD) if split == "benchmark" else None
        return str(record["inputs"]["qa"][0]["path"]) if record else f"qa/{split}.parquet"

    def raw(self, source: str) -> str:
        """Name of the index of a source's files, as its images table records it."""
        record = self.record(f"images/{source}.images.parquet")
        if record is None:
            raise UserError(f"{self.folder}/images/{source}.images.parquet has no sidecar: nothing says what it was made of")
        return str(record["inputs"]["raw"][0]["path"])


def _known(what: str, given: str, right: Iterable[str]) -> None:
    """UserError with the nearest right names where `given` is not one."""
    right = sorted(right)
    if given not in right:
        near = difflib.get_close_matches(given, right, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(right)}"
        raise UserError(f"no {what} {given} in the leaderboard: {hint}")


def cell(results: Path, model: str, set_: str, metric: str, *, kind: str | None = None, condition: str = "plain") -> Row:
    """A cell of the leaderboard and what it rests on: {cells, sources, sets, items, nodes}.

    cells: its rows (one a kind) on all questions. sources: questions of each. items: the scores it is a mean of, those subtracted
    included (rates: items of accuracy, by their status; of a rotated question one for each rotation). nodes: by file name, from
    the leaderboard down, the job that made it and `inputs`, those files it rests on with the sha256 they were read with. Raises
    UserError, SidecarError.
    """
    run = Run(results)
    board = run.rows(LEADERBOARD)
    record = run.record(LEADERBOARD)
    if record is None or sha256(results / LEADERBOARD) != record["outputs"]["leaderboard"]["sha256"]:
        raise UserError(f"{results / LEADERBOARD}: is not what its sidecar speaks of; `snakemake audit` tells all that differs")
    given = {"model": model, "set": set_, "condition": condition, **({"kind": kind} if kind else {})}
    board = [row for row in board if row["part"] == "all"]
    for what, value in (*given.items(), ("metric", metric)):
        _known(what, value, {row[what] for row in board})
    here = [row for row in board if all(row[what] == value for what, value in given.items())]
    cells = [row for row in here if row["metric"] == metric]
    if not cells:
        there = ", ".join(sorted({row["metric"] for row in here})) or "no cell at all"
        raise UserError(f"no {metric} of {', '.join(given.values())}: there is {there}")

    sums = {"held_in", "held_out"}
    apart = ("held_out", "further")
    of_sum = {r["set"] for r in board if set_ == (r["ability"] if r["ability"] in apart else "held_in")} - sums
    sets = sorted(of_sum if set_ in sums else {set_})
    kinds = sorted({row["kind"] for row in cells})
    where = [("set", "in", sets), ("kind", "in", kinds)]
    sources = Counter(row["source"] for row in run.rows(run.questions("benchmark"), ["source"], where))

    scored, _, less = metric.partition("_minus_")
    sides = {(model, condition)}
    if less:
        sides.add((record["cfg"]["pairs"][model], condition) if less == "base" else (model, less))
    tables = {PurePosixPath(entry["path"]).stem: entry["path"] for entry in record["inputs"]["answers"]}
    sides = {side for side in sides if side[0] in tables}  # baselines have no answers: they rest on the questions alone
    letter = scored.removeprefix("recall_") if scored.startswith("recall_") else ""
    read = ["accuracy", "exact_match"] if scored.endswith("_rate") else ["accuracy" if letter else scored]
    items: list[Row] = []
    for name, asked in sorted(sides):
        chosen = [*where, ("condition", "=", asked), ("metric", "in", read)]
        items += run.rows(tables[name], ["qa_id", "model", "condition", "rotation", "value", "status", "read"], chosen)
    if letter:
        gold = run.rows(run.questions("benchmark"), ["qa_id"], [*where, ("answer_index", "=", LETTERS.index(letter))])
        items = [item for item in items if item["qa_id"] in {row["qa_id"] for row in gold}]
    elif less:  # a condition may ask fewer questions
        both = set.intersection(*({i["qa_id"] for i in items if (i["model"], i["condition"]) == side} for side in sides))
        items = [item for item in items if item["qa_id"] in both]
    nodes: dict[str, Row] = {}
    _walk(run, LEADERBOARD, "", sides, set(sources), nodes)
    return {"cells": cells, "sets": sets, "sources": dict(sorted(sources.items())), "items": items, "nodes": nodes}


def _walk(run: Run, name: str, read: str, sides: set[tuple[str, str]], sources: set[str], nodes: dict[str, Row]) -> None:
    """Add a file and all it rests on. read: the hash its reader saw; sides: (model, condition) whose replies count."""
    if name in nodes:
        return
    record = run.record(name)
    if record is None:
        nodes[name] = {"sha256": read, "program": None, "inputs": {}}
        return
    own = next(entry for entry in job_record.outputs(record) if entry["path"] == name)
    folder = next((f for f in record["folders"] if f["index"] == name), None)
    nodes[name] = {
        "sha256": own["sha256"],
        "bytes": own["bytes"],
        "program": record["program"],
        "summary": record["summary"],
        "code": record["code"]["sha256"],
        **record["git"],
        "host": record["machine"]["host"],
        "end": record["end"],
        "restored": record.get("restored"),
        "folder": folder and {"path": folder["path"], "tree": folder["tree"], "files": run.table(name, ["bytes"]).num_rows},
        "inputs": _rests(run, name, record, sides, sources),
    }
    for file, hashed in nodes[name]["inputs"].items():
        _walk(run, file, hashed, sides, sources, nodes)


def _rests(run: Run, name: str, record: job_record.Record, sides: set[tuple[str, str]], sources: set[str]) -> dict[str, str]:
    """Inputs that a file rests on, with the sha256 they were read with."""
    merges, shows = record["program"] == "merge_qa.py", "images" in record["inputs"] and "qa" in record["inputs"]
    asked = [name] if merges else [entry["path"] for entry in record["inputs"]["qa"]] if shows else []
    scored = {run.questions("benchmark"), "qa/benchmark.parquet"}
    held = [sources if n in scored else set(run.table(n, ["source"])[0].unique().to_pylist()) for n in asked]
    here = set().union(*held)
    models = {model for model, _ in sides}
    keep = {"answers": models, "predictions": models}
    if record["program"] == "leaderboard.py":  # training makes the clean part, and cells are told on all questions
        keep |= {"train": set()}
    elif merges:
        keep |= {"qa": here}
    elif record["program"] == "join_benchmark.py":
        further = {PurePosixPath(entry["path"]).stem for entry in record["inputs"]["heldout"]}
        keep |= {"heldout": sources, "benchmark": {"benchmark"} if sources - further else set()}
    elif shows:
        asked_under = {condition for model, condition in sides if model == record["cfg"].get("model")}
        if asked_under == {"blind"}:  # such replies rest on no image
            here = set()
        if "other_patient" not in asked_under:  # whose images may be of any source
            keep |= {"images": {f"{source}.images" for source in here}}
    return {
        entry["path"]: entry["sha256"]
        for option, entries in record["inputs"].items()
        for entry in entries
        if option not in keep or PurePosixPath(entry["path"]).stem in keep[option]
    }


def question(results: Path, qa_id: str) -> Row:
    """All a run knows of a question: {question, splits, findings, images, replies, shards}.

    qa_id: its first digits will do, 6 at least. `agrees` says whether an image's file has the hash in the index of raw files
    that its source recorded; None inside an archive, of which the index knows the whole. Raises UserError, SidecarError.
    """
    run = Run(results)
    start = qa_id.strip().lower()
    if len(start) < 6:
        raise UserError(f"qa id {qa_id!r}: give 6 of its digits at least")
    ids: dict[str, list[str]] = {}
    for split in SPLITS:
        if (results / run.questions(split)).is_file():
            for found in run.table(run.questions(split), ["qa_id"])[0].to_pylist():
                ids.setdefault(found, []).append(split)
    fitting = sorted(i for i in ids if i.startswith(start))
    if len(fitting) != 1:
        heads = {i[: len(start)]: i for i in ids}
        near = fitting[:5] or [heads[head] for head in difflib.get_close_matches(start, heads)]
        what = f"stands for {len(fitting)} questions" if fitting else f"is in no table of {results / 'qa'}"
        hint = f"did you mean {' or '.join(near)}?" if near else "none is near it" if ids else "is the run finished?"
        raise UserError(f"qa id {start} {what}: {hint}")
    name, splits = fitting[0], ids[fitting[0]]
    asked = run.rows(run.questions(splits[0]), None, [("qa_id", "=", name)])[0]
    asked.pop("split")
    return {
        "question": asked,
        "splits": splits,
        "findings": _findings(run, asked["findings"]),
        "images": _images(run, asked["image_ids"], asked["source"]),
        "replies": _replies(run, name) if "benchmark" in splits else [],
        "shards": _shards(run, name, splits),
    }


def _indexed(run: Run, source: str, files: Iterable[str]) -> dict[str, str]:
    """Hashes of raw files of a source, as its index has them; archives for their members."""
    wanted = sorted({file.partition("!")[0] for file in files})
    return {row["path"]: row["sha256"] for row in run.rows(run.raw(source), ["path", "sha256"], [("path", "in", wanted)])}


def _findings(run: Run, ids: list[str]) -> list[Row]:
    """Findings in order; of one that no table has, only the id."""
    found: dict[str, Row] = {}
    for source in sorted({i.rpartition("/")[0] for i in ids}):
        rows = run.rows(f"images/{source}.findings.parquet", None, [("finding_id", "in", sorted(set(ids)))])
        index = _indexed(run, source, [row["origin_file"] for row in rows]) if rows else {}
        found |= {row["finding_id"]: row | {"file_sha256": index.get(row["origin_file"].partition("!")[0])} for row in rows}
    return [found.get(i, {"finding_id": i}) for i in ids]


def _images(run: Run, references: list[str], source: str) -> list[Row]:
    """Images in order, looked up in their source's table first; of one that no table has, only the reference."""
    found: dict[str, Row] = {}
    for name in sorted(run.glob("images/*.images.parquet"), key=lambda n: n != f"images/{source}.images.parquet"):
        missing = sorted({r.removeprefix("release/") for r in references if r not in found})
        if not missing:
            break
        rows = run.rows(name, IMAGE, [[("image_id", "in", missing)], [("release_path", "in", missing)]])
        index = _indexed(run, rows[0]["source"], [row["origin_file"] for row in rows]) if rows else {}
        for row in rows:
            path, _, member = row["origin_file"].partition("!")
            row |= {"index": run.raw(row["source"]), "index_sha256": index.get(path)}
            row["agrees"] = None if member and path in index else index.get(path) == row["origin_sha256"]
            for reference in (row["image_id"], f"release/{row['release_path']}"):
                found.setdefault(reference, row)  # of files with the same pixels, the first answers
    return [{"reference": r} | found.get(r, {}) for r in references]


def _replies(run: Run, qa_id: str) -> list[Row]:
    """Replies of all models under all conditions; the scores stand with the first one that has them."""
    where = [("qa_id", "=", qa_id)]
    scores: dict[tuple[str, str], list[Row]] = {}
    for name in run.glob("scores/*.parquet"):
        for row in run.rows(name, ["model", "condition", "metric", "value", "status", "read"], where):
            scores.setdefault((row.pop("model"), row.pop("condition")), []).append(row)
    replies = [row | {"file": name} for name in run.glob("predictions/*.parquet") for row in run.rows(name, None, where)]
    return [row | {"scores": scores.pop((row["model"], row["condition"]), [])} for row in replies]


def _shards(run: Run, qa_id: str, splits: list[str]) -> list[Row]:
    """Where a training question stands, and the models trained on it."""
    found = []
    trained = {name: job_record.inputs(record) for name in run.glob("models/*/files.parquet") if (record := run.record(name))}
    for name in [n for split in splits if split != "benchmark" for n in run.glob(f"shards/*/{split}.samples.parquet")]:
        for row, sample in enumerate(run.rows(name, ["qa_id", "length"])):
            if sample["qa_id"] == qa_id:
                models = [PurePosixPath(m).parent.name for m, read in trained.items() if name in [e["path"] for e in read]]
                found.append({"file": name, "row": row, "length": sample["length"], "models": models})
    return found
