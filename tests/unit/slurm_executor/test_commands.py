"""What is handed to sbatch and to the shell of a job, where folders hold what these might read something into."""

import shlex
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.utils import format_cli_arg

from medmim.snakemake_hooks.patches import install_patches
from snakemake_executor_plugin_slurm_medmim.executor import Executor

ODD = 'it\'s "odd" #1 é $(touch executed) `touch executed`; touch executed & \\ * {x} %j'


def test_sbatch_gets_folders_as_they_are() -> None:
    """A log's name has % doubled, as sbatch reads patterns in it, but for the job's id."""
    executor = SimpleNamespace(
        workflow=SimpleNamespace(workdir_init=f"/{ODD}", executor_settings=None), run_uuid="mini-0", _failed_nodes=set(),
        _build_account_option=lambda job: "", get_partition_arg=lambda job: "-p cpu", _name_cluster=lambda job: "",
    )  # fmt: skip
    job = SimpleNamespace(resources={"mem_mb": 1, "runtime": 2}, name="tune", threads=1, attempt=1, is_group=lambda: False)
    job.resources = type("Resources", (dict,), {"__getattr__": dict.get})(job.resources)
    command = Executor._build_command(executor, job, Path(f"/{ODD}/rule_tune"), "rule_tune 0")
    options = dict(pairwise(command))
    assert options["-D"] == f"/{ODD}" and options["--comment"] == "rule_tune 0"
    assert options["--output"] == f"/{ODD}/rule_tune".replace("%", "%%") + "/%j.log"


class OddExecutor(RealExecutor):
    """An executor whose interpreter, checkout, working directory and settings have odd names."""

    cancel = cores = run_job = shutdown = None

    def __init__(self, python: Path) -> None:
        self.python, self.snakefile = python, f"/{ODD}/Snakefile"
        arguments = [("--directory", f"/{ODD}"), ("--config", {"results": ODD}), ("--configfiles", [Path(ODD), "it's"])]
        general_args = " ".join(format_cli_arg(flag, value) for flag, value in arguments)
        nothing = lambda **options: ""  # noqa: E731
        factory = SimpleNamespace(general_args=lambda **options: general_args, precommand=nothing, envvars=dict)
        dag = SimpleNamespace(get_unneeded_temp_files=lambda job: [])
        group_settings = SimpleNamespace(local_groupid="local")
        self.workflow = SimpleNamespace(spawned_job_args_factory=factory, dag=dag, group_settings=group_settings)
        self.workflow.executor_plugin = SimpleNamespace(common_settings=SimpleNamespace(pass_envvar_declarations_to_cmd=False))

    def get_python_executable(self) -> str:
        return str(self.python)

    def get_exec_mode(self) -> SimpleNamespace:
        return SimpleNamespace(item_to_choice=lambda: "default")

    def additional_general_args(self) -> str:
        return ""

    def get_job_args(self, job: object, **options: object) -> str:
        return ""


def test_snakemake_starts_itself_with_paths_and_settings_as_they_are(tmp_path: Path) -> None:
    import_module("snakemake.api")  # as Snakemake does before it reads the Snakefile
    install_patches()
    python = tmp_path / ODD
    python.write_text(f"#!{sys.executable}\nimport sys\nprint(ascii(sys.argv[1:]))\n")
    python.chmod(0o755)
    command = OddExecutor(python).format_job_exec(SimpleNamespace())
    assert command == OddExecutor(python).format_job_exec(SimpleNamespace())
    done = subprocess.run(["sh", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    words = shlex.split(command)
    assert done.stdout == f"{words[1:]!a}\n" and words[0] == str(python)
    for flag, values in {
        "--snakefile": [f"/{ODD}/Snakefile"], "--directory": [f"/{ODD}"], "--config": [f"results={ODD}"],
        "--configfiles": [ODD, "it's"],
    }.items():  # fmt: skip
        start = words.index(flag) + 1
        assert words[start : start + len(values)] == values
    assert [path.name for path in tmp_path.iterdir()] == [python.name]


@pytest.mark.parametrize("value", [ODD, "it's $(touch x)", "a\\b"])
def test_what_is_patched_is_still_at_fault(value: str) -> None:
    """Snakemake's own quoting, in a fresh process: once it is mended, so can our patch be taken away."""
    code = "import sys; from snakemake_interface_executor_plugins.utils import format_cli_arg\n"
    code += "print(format_cli_arg('--directory', sys.argv[1]))"
    told = subprocess.run([sys.executable, "-c", code, value], capture_output=True, text=True, check=True).stdout.rstrip("\n")
    assert told != f"--directory {shlex.quote(value)}"
