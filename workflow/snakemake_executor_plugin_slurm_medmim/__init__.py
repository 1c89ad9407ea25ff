"""Snakemake's SLURM executor, made to survive what clusters do: `executor: slurm-medmim`. Found by Snakemake by its name."""

from medmim.snakemake_hooks.startup import patch_startup
from medmim.snakemake_hooks.versions import require_tested_versions

require_tested_versions()  # before what follows imports packages of another version
patch_startup()  # plugins are imported before anything else, as early as this is needed

from snakemake_executor_plugin_slurm_medmim.executor import Executor, ExecutorSettings, common_settings  # noqa: E402

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
