"""Follow a number of a run back to its raw files, or show all a run knows of one question.

A cell of the leaderboard is named by model, set and metric: every file it rests on follows, with its hash and the job that
made it. A question is named by the first digits of its qa_id. Hashes are shown by 12 digits; --json has them whole.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from medmim.common.errors import SidecarError, UserError
from medmim.common.files import write_atomically
from medmim.common.process_setup import prepare_process
from medmim.questions.prompt import LETTERS
from medmim.reporting import lineage

MAX_ITEMS = 8
"""Items of a cell named in the tree."""


def join_parts(*parts: str, style: str = "") -> Text:
    """Parts that are not empty, the first in bold, joined by commas."""
    first, *rest = filter(None, parts)
    return Text.assemble((first, style or "bold"), *(f", {part}" for part in rest))


def format_time(iso: str) -> str:
    return iso[:19].replace("T", " ") + " UTC"


def build_cell_tree(cell_trace: dict[str, Any]) -> Tree:
    """The cell, what it is a mean of, and the chain of files."""
    first = cell_trace["cells"][0]
    root = Tree(Text(f"{first['model']}, {first['set']}, {first['metric']}, {first['condition']}", "bold green"))
    for row in cell_trace["cells"]:
        interval = "no interval" if row["ci_low"] is None else f"95 % interval {row['ci_low']:.3f} to {row['ci_high']:.3f}"
        counts = f"{row['n']} {row['kind']} questions of {row['n_patients']} patients"
        root.add(join_parts(f"{row['value']:.4f}", interval, counts))
    if cell_trace["sets"] != [first["set"]]:
        root.add(f"sets {', '.join(cell_trace['sets'])}")
    root.add("questions from " + ", ".join(f"{source} ({count})" for source, count in cell_trace["sources"].items()))
    rate = first["metric"].endswith("_rate")
    sides: dict[str, list[str]] = {}
    for item in cell_trace["items"]:
        item_text = f"{item['qa_id']} {item['status'] if rate else format(item['value'], '.3g')}"
        sides.setdefault(f"{item['model']}, {item['condition']}", []).append(item_text)
    for side, items in sides.items():
        more = f" and {len(items) - MAX_ITEMS} more" if len(items) > MAX_ITEMS else ""
        root.add(Text(f"{side}: {', '.join(items[:MAX_ITEMS])}{more}"))
    seen_files: set[str] = set()

    def add_file(tree: Tree, name: str, read_sha256: str) -> None:
        node = cell_trace["nodes"][name]
        label = Text.assemble((name, "bold"), f" {node['sha256'][:12]}")
        if read_sha256 != node["sha256"]:
            label.append(f" but read as {read_sha256[:12]}", "red")
        seen_files.add(name)
        if node["program"] is None:
            tree.add(label.append(" (no sidecar)", "red"))
            return
        if folder := node["folder"]:
            label.append(f", {folder['files']} files in {folder['path']}")
        changed = "" if node["clean"] or not node["commit"] else " with changes"
        details = [
            f"code {node['code'][:12]}",
            f"commit {node['commit'][:12] or 'none'}{changed}",
            node["host"],
            format_time(node["end"]),
        ]
        if restored_from := node["restored"]:
            details.append(f"restored {format_time(restored_from['at'])} on {restored_from['host']}")
        label.append(f"\n{node['program']}: {node['summary']}").append(f"\n{', '.join(details)}", "dim")
        branch = tree.add(label)
        repeated_files = []
        for file, sha256 in node["inputs"].items():
            if file in seen_files:
                repeated_files.append(
                    file if sha256 == cell_trace["nodes"][file]["sha256"] else f"{file} but read as {sha256[:12]}"
                )
            else:
                add_file(branch, file, sha256)
        if repeated_files:
            branch.add(Text(f"above: {', '.join(repeated_files)}", "dim"))

    add_file(root, lineage.LEADERBOARD, cell_trace["nodes"][lineage.LEADERBOARD]["sha256"])
    return root


def build_question_tree(question_trace: dict[str, Any]) -> Tree:
    """The question with its findings, images, replies and shards."""
    question = question_trace["question"]
    root = Tree(Text(f"{question['qa_id']}, {', '.join(question_trace['splits'])}", "bold green"))
    root.add(
        join_parts(
            question["set"],
            question["ability"],
            question["kind"],
            question["task"],
            question["source"],
            f"made by {question['generator']}",
        )
    )
    add_question(root, question)
    add_findings(root, question_trace["findings"])
    add_images(root, question_trace["images"])
    if "benchmark" in question_trace["splits"]:
        add_replies(root, question_trace["replies"])
    if question_trace["splits"] != ["benchmark"]:
        add_shards(root, question_trace["shards"])
    return root


def add_question(root: Tree, question: dict[str, Any]) -> None:
    branch, gold = root.add(Text(question["question"])), question["answer_index"]
    for number, option in enumerate(question["options"]):
        branch.add(Text(f"{LETTERS[number]}. {option}" + (" (gold)" if number == gold else ""), "bold" if number == gold else ""))
    if gold is None:
        branch.add(Text(f"gold: {question['answer']}", "bold"))
    branch.add(join_parts("patients: " + ", ".join(question["patient_ids"]), style="none"))


def add_findings(root: Tree, findings: list[dict[str, Any]]) -> None:
    branch = root.add(join_parts(f"findings: {len(findings)}"))
    for row in findings:
        if "name" not in row:
            branch.add(join_parts(row["finding_id"], "in no findings table", style="red"))
            continue
        about = row["image_id"] and f"image {row['image_id'][:12]}"
        file = f"file {row['file_sha256'][:12]}" if row["file_sha256"] else "file not in the index"
        place = f"{row['origin_file']} row {row['origin_row']}"
        branch.add(join_parts(f"{row['name']} = {row['value']}", about, place, file))


def add_images(root: Tree, images: list[dict[str, Any]]) -> None:
    branch = root.add(join_parts(f"images: {len(images)}"))
    for row in images:
        if "image_id" not in row:
            branch.add(join_parts(row["reference"], "in no images table", style="red"))
            continue
        day = "" if row["day"] is None else f"day {row['day']}"
        image_text = join_parts(
            row["image_id"][:12], f"{row['laterality']} {row['view']}".strip(), day, f"{row['width']} x {row['height']}"
        )
        image_text.append(f"\n{row['origin_file']}\nsha256 {row['origin_sha256'][:12]}: ")
        match row["agrees"]:
            case True:
                image_text.append(f"as in {row['index']}")
            case None:
                image_text.append(f"a member; its archive is {row['index_sha256'][:12]} in {row['index']}")
            case _:
                image_text.append(f"but {(row['index_sha256'] or 'absent')[:12]} in {row['index']}", "red")
        branch.add(image_text)


def add_replies(root: Tree, replies: list[dict[str, Any]]) -> None:
    branch = root.add(join_parts(f"replies: {len(replies)}"))
    for row in replies:
        reply_label = f"{row['model']}, {row['condition']}" + (f" by {row['rotation']}" if row["rotation"] else "")
        reply_branch = branch.add(join_parts(reply_label, row["failure"] or repr(row["reply"])))
        for score in row["scores"]:
            reading = [score["status"], f"read {score['read']}" if score["read"] else ""]
            reply_branch.add(join_parts(f"{score['metric']} {score['value']:.3g}", *reading, style="none"))


def add_shards(root: Tree, shards: list[dict[str, Any]]) -> None:
    branch = root.add(join_parts(f"shards: {len(shards)}"))
    for row in shards:
        models = f"trained {', '.join(row['models'])}" if row["models"] else "no model trained on it yet"
        branch.add(join_parts(row["file"], f"row {row['row']}", f"{row['length']} tokens", models))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder of the run")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--cell", nargs=3, metavar=("MODEL", "SET", "METRIC"), help="a cell of the leaderboard")
    target.add_argument("--qa-id", help="a question; its first 6 digits or more")
    parser.add_argument("--kind", help="of a cell: closed or open, where a metric has both")
    parser.add_argument("--condition", default="plain", help="of a cell: plain, blind, ... (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the same as JSON; - for standard output in place of the tree")
    args = parser.parse_args()
    prepare_process()
    try:
        if args.cell:
            result = lineage.trace_cell(args.results, *args.cell, kind=args.kind, condition=args.condition)
        else:
            result = lineage.trace_question(args.results, args.qa_id)
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
            return
        if args.json:
            with write_atomically(Path(args.json)) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except (UserError, SidecarError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(build_cell_tree(result) if args.cell else build_question_tree(result))


if __name__ == "__main__":
    main()
