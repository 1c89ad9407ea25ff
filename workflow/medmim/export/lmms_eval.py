"""A folder of tasks for EvolvingLMMs-Lab/lmms-eval (0.7): a task a set and kind, groups, and the functions that they name.

Its task files are YAML (docs/guides/task_guide.md); `include` and `!function` are resolved beside the file, and so is data_files
where dataset_path is the name of a local builder, such as parquet: the folder works wherever it lies.
"""

import inspect
from pathlib import Path
from typing import Any

import yaml

from medmim.export import card, lmms_utils, parquet
from medmim.export.questions import Questions
from medmim.questions.sets import FURTHER, find_set_group
from medmim.scoring import open_ended, reply_parser

COMMON_FILE = "_medmim"  # no .yaml: lmms-eval takes every *.yaml for a task or a group
COMMON_TEMPLATE = """\
dataset_path: parquet
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: !function utils.doc_to_target
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  do_sample: false
  num_beams: 1
  until: []
lmms_eval_specific_kwargs:  # put around the question; empty, it is what the Med-MIM pipeline asks
  default:
    pre_prompt: ""
    post_prompt: ""
metadata:
  version: 1.0
"""
TASK_TEMPLATE = """\
include: {common}
task: {task}
dataset_kwargs:
  data_files:
    test: data/{task}.parquet
process_results: !function utils.{kind}_results
metric_list:
"""
METRIC_TEMPLATE = """\
  - metric: {metric}
    aggregation: mean
    higher_is_better: {better}
"""
METRIC_DIRECTIONS = {
    "closed": {"accuracy": True, **{f"{rate}_rate": False for rate in lmms_utils.RATES}},
    "open": dict.fromkeys(open_ended.OPEN_METRICS, True),
}
"""By kind: whether more is better, by metric."""
USAGE = """
```bash
python -m lmms_eval --model qwen2_5_vl --model_args pretrained=Qwen/Qwen2.5-VL-7B-Instruct \\
  --include_path path/to/this/folder --tasks medmim --batch_size 1
```

`medmim` is all of it; `medmim_held_in` and `medmim_held_out` are the closed sets' sums, each question counting once,
`medmim_open` the open questions, and each set is a task of its own: {tasks}.

Replies are read by a strict grammar that never guesses: what can't be read counts as wrong, and its rate stands beside the
accuracy.
"""


def write_export(folder: Path, questions: Questions, cfg: dict[str, Any]) -> str:
    """Fill `folder`; says in a few words what was made. cfg: max_new_tokens."""
    groups: dict[str, list[str]] = {}
    for set_, kind, rows in questions.iterate_parts():
        task = f"medmim_{set_}" + ("_open" if kind == "open" else "")
        parquet.write_questions(folder / "data" / f"{task}.parquet", questions, rows)
        metrics = (METRIC_TEMPLATE.format(metric=m, better=str(more).lower()) for m, more in METRIC_DIRECTIONS[kind].items())
        content = TASK_TEMPLATE.format(common=COMMON_FILE, task=task, kind=kind) + "".join(metrics)
        (folder / f"{task}.yaml").write_text(content, encoding="utf-8")
        groups.setdefault("open" if kind == "open" else find_set_group(set_), []).append(task)
    tasks = [task for members in groups.values() for task in members]
    further_tasks = groups.pop(FURTHER, [])
    for name, members in groups.items():
        aggregation = [{"metric": "accuracy", "aggregation": "mean", "weight_by_size": True}] if name != "open" else None
        _write_group(folder, f"medmim_{name}", members, aggregation)
    _write_group(folder, "medmim", [*(f"medmim_{name}" for name in groups), *further_tasks])
    (folder / COMMON_FILE).write_text(COMMON_TEMPLATE.format(max_new_tokens=cfg["max_new_tokens"]), encoding="utf-8")
    for name, module in {"utils": lmms_utils, "reply_parser": reply_parser, "open_ended": open_ended}.items():
        (folder / f"{name}.py").write_text(inspect.getsource(module), encoding="utf-8")
    usage = USAGE.format(tasks=", ".join(f"`{task}`" for task in tasks))
    (folder / "README.md").write_text(card.render_card(questions, usage), encoding="utf-8")
    return f"{len(tasks)} tasks, {len(questions.rows)} questions"


def _write_group(folder: Path, name: str, members: list[str], aggregation: list[dict[str, Any]] | None = None) -> None:
    group_config = {
        "group": name,
        "task": members,
        **({"aggregate_metric_list": aggregation} if aggregation else {}),
        "metadata": {"version": 1.0},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(group_config, sort_keys=False), encoding="utf-8")
