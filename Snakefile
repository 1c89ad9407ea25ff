"""Med-MIM: multi-image medical instruction data, two fine-tuned models, and a benchmark, from raw sources to a report.

snakemake --profile slurm                                       the paper's scale (config/config.yaml)
snakemake --profile profiles/local --configfile config/demo.yaml       the demo: synthetic, minutes on a laptop
"""

from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")  # see workflow/medmim/snakemake_hooks/versions.py

if not workflow.overwrite_configfiles:  # --configfile replaces the paper's config; Snakemake would merge the two

    configfile: Path(workflow.snakefile).parent / "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/qa.smk"
include: "workflow/rules/heldout.smk"
include: "workflow/rules/copies.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/ask.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/merge.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/crate.smk"
include: "workflow/rules/export.smk"


rule all:
    """Everything: the leaderboard and the report."""
    default_target: True
    input:
        f"{R}/leaderboard.parquet",
        f"{R}/report.html",
        f"{R}/tables/leaderboard.md",


onsuccess:
    tell_costs()
    tell_result()


onerror:
    tell_costs()
