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
from medmim.common.files import whole
from medmim.questions.prompt import LETTERS
from medmim.reporting import lineage

SHOWN = 8
"""Items of a cell named in the tree."""


def line(*parts: str, style: str = "") -> Text:
    """Parts that are not empty, the first in bold, joined by commas."""
    first, *rest = filter(None, parts)
    return Text.assemble((first, style or "bold"), *(f", {part}" for part in rest))


def when(iso: str) -> str:
    return iso[:19].replace("T", " ") + " UTC"


def of_cell(found: dict[str, Any]) -> Tree:
    """The cell, what it is a mean of, and the chain of files."""
    first = found["cells"][0]
    root = Tree(Text(f"{first['model']}, {first['set']}, {first['metric']}, {first['condition']}", "bold green"))
    for row in found["cells"]:
        interval = "no interval" if row["ci_low"] is None else f"95 % interval {row['ci_low']:.3f} to {row['ci_high']:.3f}"
        counts = f"{row['n']} {row['kind']} questions of {row['n_patients']} patients"
        root.add(line(f"{row['value']:.4f}", interval, counts))
    if found["sets"] != [first["set"]]:
        root.add(f"sets {', '.join(found['sets'])}")
    root.add("questions from " + ", ".join(f"{source} ({count})" for source, count in found["sources"].items()))
    rate = first["metric"].endswith("_rate")
    sides: dict[str, list[str]] = {}
    for item in found["items"]:
        told = f"{item['qa_id']} {item['status'] if rate else format(item['value'], '.3g')}"
        sides.setdefault(f"{item['model']}, {item['condition']}", []).append(told)
    for side, items in sides.items():
        more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
        root.add(Text(f"{side}: {', '.join(items[:SHOWN])}{more}"))
    seen: set[str] = set()

    def grow(tree: Tree, name: str, read: str) -> None:
        node = found["nodes"][name]
        label = Text.assemble((name, "bold"), f" {node['sha256'][:12]}")
        if read != node["sha256"]:
            label.append(f" but read as {read[:12]}", "red")
        seen.add(name)
        if node["program"] is None:
            tree.add(label.append(" (no sidecar)", "red"))
            return
        if folder := node["folder"]:
            label.append(f", {folder['files']} files in {folder['path']}")
        changed = "" if node["clean"] or not node["commit"] else " with changes"
        made = [f"code {node['code'][:12]}", f"commit {node['commit'][:12] or 'none'}{changed}", node["host"], when(node["end"])]
        if back := node["restored"]:
            made.append(f"restored {when(back['at'])} on {back['host']}")
        label.append(f"\n{node['program']}: {node['summary']}").append(f"\n{', '.join(made)}", "dim")
        branch = tree.add(label)
        again = []
        for file, sha256 in node["inputs"].items():
            if file in seen:
                again.append(file if sha256 == found["nodes"][file]["sha256"] else f"{file} but read as {sha256[:12]}")
            else:
                grow(branch, file, sha256)
        if again:
            branch.add(Text(f"above: {', '.join(again)}", "dim"))

    grow(root, lineage.LEADERBOARD, found["nodes"][lineage.LEADERBOARD]["sha256"])
    return root


def of_question(found: dict[str, Any]) -> Tree:
    """The question with its findings, images, replies and shards."""
    asked = found["question"]
    gold = asked["answer_index"]
    root = Tree(Text(f"{asked['qa_id']}, {', '.join(found['splits'])}", "bold green"))
    root.add(line(asked["set"], asked["ability"], asked["kind"], asked["task"], asked["source"], f"made by {asked['generator']}"))
    branch = root.add(Text(asked["question"]))
    for number, option in enumerate(asked["options"]):
        branch.add(Text(f"{LETTERS[number]}. {option}" + (" (gold)" if number == gold else ""), "bold" if number == gold else ""))
    if gold is None:
        branch.add(Text(f"gold: {asked['answer']}", "bold"))
    branch.add(line("patients: " + ", ".join(asked["patient_ids"]), style="none"))

    branch = root.add(line(f"findings: {len(found['findings'])}"))
    for row in found["findings"]:
        if "name" not in row:
            branch.add(line(row["finding_id"], "in no findings table", style="red"))
            continue
        about = row["image_id"] and f"image {row['image_id'][:12]}"
        file = f"file {row['file_sha256'][:12]}" if row["file_sha256"] else "file not in the index"
        place = f"{row['origin_file']} row {row['origin_row']}"
        branch.add(line(f"{row['name']} = {row['value']}", about, place, file))
    branch = root.add(line(f"images: {len(found['images'])}"))
    for row in found["images"]:
        if "image_id" not in row:
            branch.add(line(row["reference"], "in no images table", style="red"))
            continue
        day = "" if row["day"] is None else f"day {row['day']}"
        what = line(row["image_id"][:12], f"{row['laterality']} {row['view']}".strip(), day, f"{row['width']} x {row['height']}")
        what.append(f"\n{row['origin_file']}\nsha256 {row['origin_sha256'][:12]}: ")
        match row["agrees"]:
            case True:
                what.append(f"as in {row['index']}")
            case None:
                what.append(f"a member; its archive is {row['index_sha256'][:12]} in {row['index']}")
            case _:
                what.append(f"but {(row['index_sha256'] or 'absent')[:12]} in {row['index']}", "red")
        branch.add(what)
    if "benchmark" in found["splits"]:
        branch = root.add(line(f"replies: {len(found['replies'])}"))
        for row in found["replies"]:
            how = f"{row['model']}, {row['condition']}" + (f" by {row['rotation']}" if row["rotation"] else "")
            under = branch.add(line(how, row["failure"] or repr(row["reply"])))
            for score in row["scores"]:
                read = [score["status"], f"read {score['read']}" if score["read"] else ""]
                under.add(line(f"{score['metric']} {score['value']:.3g}", *read, style="none"))
    if found["splits"] != ["benchmark"]:
        branch = root.add(line(f"shards: {len(found['shards'])}"))
        for row in found["shards"]:
            models = f"trained {', '.join(row['models'])}" if row["models"] else "no model trained on it yet"
            branch.add(line(row["file"], f"row {row['row']}", f"{row['length']} tokens", models))
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder of the run")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cell", nargs=3, metavar=("MODEL", "SET", "METRIC"), help="a cell of the leaderboard")
    what.add_argument("--qa-id", help="a question; its first 6 digits or more")
    parser.add_argument("--kind", help="of a cell: closed or open, where a metric has both")
    parser.add_argument("--condition", default="plain", help="of a cell: plain, blind, ... (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the same as JSON; - for standard output in place of the tree")
    args = parser.parse_args()
    try:
        if args.cell:
            found = lineage.cell(args.results, *args.cell, kind=args.kind, condition=args.condition)
        else:
            found = lineage.question(args.results, args.qa_id)
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
            return
        if args.json:
            with whole(Path(args.json)) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except (UserError, SidecarError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(of_cell(found) if args.cell else of_question(found))


if __name__ == "__main__":
    main()
