"""The DAG is built without data, network or GPU, and says what it would do."""

import re
from collections import Counter
from pathlib import Path

import pytest
import release_made
import yaml

from medmim.provenance.code_digest import WORKFLOW

ROOT = WORKFLOW.parent


def jobs(output: str) -> Counter[str]:
    """Jobs by rule of a dry run's closing table."""
    table = output[output.rindex("Job stats:") :]
    return Counter({name: int(n) for name, n in re.findall(r"^([a-z_]+) +(\d+)$", table, re.M) if name != "total"})


@pytest.mark.parametrize("profile", [[], ["--profile", "slurm"]], ids=["local", "slurm"])
def test_the_papers_config_plans_everything(snakemake, tmp_path: Path, profile: list[str]) -> None:
    done = snakemake(tmp_path, "-n", *profile)
    planned = jobs(done.stdout)
    assert "No revision is set for llava-med, mantis: the newest commit on the hub is taken" in done.stdout + done.stderr
    assert planned == {
        "all": 1, "fetch_source": 6, "build_images": 6, "generate_qa": 6, "find_copies": 1, "merge_qa": 1,
        "audit_benchmark": 1, "fetch_model": 6, "build_shards": 2, "tune": 2,
        "predict": 8, "score": 8, "leaderboard": 1, "report": 1, "print_leaderboard": 1,
    }  # fmt: skip
    assert list(tmp_path.rglob("*.parquet")) == []


def test_the_demo_plans_both_bases_and_both_tunings(snakemake, tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "--configfile", ROOT / "config/demo.yaml")
    planned = jobs(done.stdout)
    assert "No revision" not in done.stdout + done.stderr
    assert planned["make_phantoms"] == 6
    assert (planned["make_base"], planned["tune"], planned["predict"], planned["score"]) == (2, 2, 4, 4)


@pytest.mark.parametrize("target", ["audit", "crate", "plan", "training_plan"])
def test_a_target_without_outputs_runs_alone(snakemake, tmp_path: Path, target: str) -> None:
    assert jobs(snakemake(tmp_path, target, "-n", "--configfile", ROOT / "config/demo.yaml").stdout) == {target: 1}


@pytest.mark.parametrize(
    ("target", "rules"),
    [("merge", {"merge_model": 2, "model_card": 2}), ("export", {"export_benchmark": 3, "export_instructions": 1})],
)
def test_a_target_with_outputs_makes_them(snakemake, tmp_path: Path, target: str, rules: dict[str, int]) -> None:
    planned = jobs(snakemake(tmp_path, target, "-n", "--configfile", ROOT / "config/demo.yaml").stdout)
    assert planned.items() >= {target: 1, **rules}.items() and not {"all", "report"} & planned.keys()


def test_the_plan_says_what_a_language_models_writing_costs_at_most(snakemake, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    prices = {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 2.0}
    generator = {"url": "http://127.0.0.1:9/v1", "model": "any", "key_env": None, **prices}
    values["qa"]["writer"] = {"generator": generator, "budget_tokens": 1_500_000, "budget_usd": 2.5}
    (tmp_path / "written.yaml").write_text(yaml.safe_dump(values))
    done = snakemake(tmp_path, "plan", "--configfile", tmp_path / "written.yaml", "--cores", "1")
    assert "Language-model writing: at most 1,500,000 tokens and 2.50 USD" in done.stdout


def test_further_held_out_sets_join_the_benchmark(snakemake, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    values["heldout"] = {
        "medframeqa": {"hub": "SuhaoYu1020/MedFrameQA", "revision": "96083ae9405b2fdb687005c65902f2ee3d7c9f12"},
        "medxpertqa": {"path": "data/medxpertqa", "limit": 100},
    }
    (tmp_path / "further.yaml").write_text(yaml.safe_dump(values))
    said = snakemake(tmp_path, "-n", "--configfile", tmp_path / "further.yaml").stdout
    planned = jobs(said)
    assert {name: planned[name] for name in ("fetch_heldout", "index_heldout", "import_heldout", "join_benchmark")} == {
        "fetch_heldout": 1, "index_heldout": 1, "import_heldout": 2, "join_benchmark": 1,
    }  # fmt: skip
    read = {rule: set(re.split(", ", found)) for rule, found in re.findall(r"^rule (\w+):\n    input: (.*)$", said, re.M)}
    further = {f"results/paper/images/{name}.images.parquet" for name in ("medframeqa", "medxpertqa")}
    for rule in ("predict", "report"):
        assert further < read[rule]
    for rule in ("predict", "score", "leaderboard", "audit_benchmark", "report"):
        assert "results/paper/qa/benchmark.heldout.parquet" in read[rule]
    assert not further & read["build_shards"]


def test_a_model_writes_questions_only_where_the_config_names_one(snakemake, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    author = {"url": "http://localhost:8000/v1", "model": "m", "usd_per_million_prompt": 0, "usd_per_million_completion": 0}
    values["qa"]["writer"] = {"generator": author, "budget_tokens": 1000, "budget_usd": 0}
    (tmp_path / "writer.yaml").write_text(yaml.safe_dump(values))
    said = snakemake(tmp_path, "-n", "--configfile", tmp_path / "writer.yaml").stdout
    assert jobs(said)["write_qa"] == 6 == jobs(said)["generate_qa"]
    read = dict(re.findall(r"^rule (\w+):\n    input: (.*)$", said, re.M))
    written = {f"results/paper/qa/{source}.written.parquet" for source in values["sources"]}
    assert set(re.split(", ", read["merge_qa"])) == {*written, "results/paper/qa/copies.parquet"}


def test_slurm_jobs_ask_for_what_the_config_says(snakemake, tmp_path: Path) -> None:
    """GPUs and threads of the recipe, whatever this machine has; the profile's partition."""
    said = snakemake(tmp_path, "-n", "--profile", "slurm").stdout
    jobs = {m[1]: m[2] for m in re.finditer(r"^ *rule (\w+):\n((?: {4,}\w.*\n)+)", said, re.M)}
    assert re.search(r"\bgpu=4\b", jobs["tune"]) and "slurm_partition=gpu" in jobs["tune"] and "threads: 32" in jobs["tune"]
    assert "slurm_partition=cpu" in jobs["score"] and not re.search(r"\bgpu=[1-9]", jobs["score"])


def test_what_the_slurm_profile_names_is_there() -> None:
    """Snakemake passes over a name that it does not know."""
    from snakemake.cli import get_argument_parser

    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    options = {name.removeprefix("--") for action in get_argument_parser()._actions for name in action.option_strings}
    assert profile.keys() <= options
    rules = {m for path in (ROOT / "workflow/rules").glob("*.smk") for m in re.findall(r"^ *rule (\w+):", path.read_text(), re.M)}
    assert profile["set-resources"].keys() <= rules and profile["groups"].keys() <= rules


def test_jobs_without_gpus_ask_slurm_for_what_other_jobs_ask(snakemake, tmp_path: Path) -> None:
    said = snakemake(tmp_path, "-n", "--profile", "slurm", "--configfile", ROOT / "config/demo.yaml").stdout
    asked = dict(re.findall(r"^rule (tune|predict):\n(?: {4}.*\n)*? {4}resources: (.*)$", said, re.M))
    assert asked.keys() == {"tune", "predict"}
    assert all("slurm_partition=cpu" in resources and "mem_mb=4000" in resources for resources in asked.values())


def test_several_processes_are_a_step_of_their_own(snakemake, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    values["models"]["med-mantis"]["tuning"] |= {"gpus": 8, "nodes": 2}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(values))
    said = snakemake(tmp_path, "-n", "--profile", "slurm", "--configfile", tmp_path / "two.yaml").stdout
    asked = next(m[1] for m in re.finditer(r"^rule tune:\n(?: {4}.*\n)*? {4}resources: (.*)$", said, re.M) if "nodes=2" in m[1])
    assert {"gpu=8", "tasks=8", "mpi=srun", "tasks_per_gpu=0", "cpus_per_task=8"} <= set(asked.split(", "))


def test_a_training_that_can_not_fit_its_gpus_is_not_queued(snakemake, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    values["models"]["med-mantis"]["tuning"] |= {"gpu_memory_gb": 24}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    done = snakemake(tmp_path, "-n", "--configfile", tmp_path / "small.yaml", ok=False)
    assert "models.med-mantis.tuning can't run" in done.stdout and "These would fit: zero_stage: 3" in done.stdout
    planned = jobs(snakemake(tmp_path, "-n", "training_plan", "--configfile", tmp_path / "small.yaml").stdout)
    assert planned == {"training_plan": 1}


def released(tmp_path: Path, **release: str) -> Path:
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    values["qa"] |= {"origin": "released", "release": release}
    path = tmp_path / "released.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("release", [{"path": "release"}, {"url": "https://example.org/r.zip", "sha256": "0" * 64}])
def test_the_release_takes_the_place_of_generation(snakemake, tmp_path: Path, release: dict[str, str]) -> None:
    release_made.write_records(tmp_path / "release/Benchmark_Dataset" / release_made.BENCHMARK, [release_made.make_record()])
    planned = jobs(snakemake(tmp_path, "-n", "--configfile", released(tmp_path, **release)).stdout)
    once = ("fetch_release", "import_release", "select_released", "find_copies")
    assert [planned[rule] for rule in once] == [1, 1, 1, 1] and planned["build_images"] == 6
    assert not {"generate_qa", "merge_qa"} & planned.keys()


def test_a_release_that_is_not_there_stops_before_anything_runs(snakemake, tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "--configfile", released(tmp_path, path="nowhere"), ok=False)
    assert "qa.release.path: nowhere: no such file or folder; expected the clone" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_mistyped_key_stops_before_anything_runs(snakemake, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    values["scoring"] = {"resample": 10}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(values))
    done = snakemake(tmp_path, "-n", "--configfile", tmp_path / "wrong.yaml", ok=False)
    assert "scoring.resample: unknown key; did you mean 'resamples'?" in done.stdout + done.stderr
    assert "wrong.yaml" in done.stdout + done.stderr


def test_what_a_config_says_twice_or_out_of_range_stops_with_its_line(snakemake, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    demo = (ROOT / "config/demo.yaml").read_text()
    line = demo.count("\n") + 1
    wrong.write_text(demo + "run: other\nqa: {train: {temporal: -16}}\n")
    done = snakemake(tmp_path, "-n", "--configfile", wrong, "--config", "prediction={gpus: 2}", ok=False)
    assert f"{wrong}:{line}: run: appears twice" in done.stdout and f"{wrong}:{line + 1}: qa: appears twice" in done.stdout
    assert ": qa.train.temporal: is -16; allowed: whole number from 0 to 10,000,000" in done.stdout
    assert "--config: prediction.gpus: is 2; allowed: whole number from 0 to 1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_options_set_sections_of_the_config(snakemake, tmp_path: Path) -> None:
    """Snakemake reads 1 as text there."""
    options = ("--config", "run=other", "prediction={gpus: 1, conditions: [plain]}", "scoring={resamples: 20}")
    said = snakemake(tmp_path, "-n", "--configfile", ROOT / "config/demo.yaml", *options).stdout
    assert re.search(r"^rule predict:\n(?: {4}.*\n)*? {4}resources: .*gpu=1", said, re.M) and "results/other/report.html" in said


def test_a_cache_in_the_runs_folder_is_refused(snakemake, tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "--configfile", ROOT / "config/demo.yaml", ok=False, MEDMIM_CACHE="results/demo/cache")
    assert "environment variable MEDMIM_CACHE: results/demo/cache and the run's folder results/demo lie in one" in done.stdout


def test_environments_have_the_locks_pins() -> None:
    lock = re.sub(r"_", "-", (ROOT / "requirements.lock").read_text().lower()).splitlines()
    for name in ("data", "gpu"):
        dependencies = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"]
        assert [p for p in dependencies[-1]["pip"] if p not in lock] == []
