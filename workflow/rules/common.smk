"""What all rules share: the checked config, the run's folder, and how a program is called."""

import os
import subprocess
import sys
from pathlib import Path

WORKFLOW = Path(workflow.snakefile).parents[1]  # not workflow.basedir, which is another's where this is used as a module
sys.path.insert(0, str(WORKFLOW))  # this checkout's library, whatever is installed
if "medmim" in sys.modules and Path(sys.modules["medmim"].__file__).resolve().parents[1] != WORKFLOW.resolve():
    for name in [name for name in sys.modules if name.partition(".")[0] == "medmim"]:
        del sys.modules[name]  # of an installed checkout, whose executor plugin has imported it

from medmim.snakemake_hooks.versions import require_tested_versions

require_tested_versions()  # before what follows imports packages of another version

from snakemake.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from medmim.common.errors import UserError
from medmim.common.user_paths import require_folder
from medmim.config import source_plugins
from medmim.config.run_config import ConfigError
from medmim.config.run_config import parse_config
from medmim.config.training import SIZES
from medmim.models.families.registry import FAMILIES, family_module
from medmim.provenance import cache
from medmim.provenance.code_digest import THIS_CHECKOUT, code_sha256
from medmim.snakemake_hooks.messages import install_messages
from medmim.snakemake_hooks.patches import install_patches
from medmim.snakemake_hooks.programs import quote_word, register_config, register_run, start_program
from medmim.snakemake_hooks.screen import install_screen
from medmim.sources import terms
from medmim.training.planning import architecture, memory

if "{" in f"{WORKFLOW}" or "}" in f"{WORKFLOW}":
    raise WorkflowError(f"Snakemake takes the braces in {WORKFLOW.parent} for wildcards: move the checkout to a folder without")

if workflow.global_resources["_nodes"].value is not None:
    # A cluster: profiles/default's cores are this machine's, and would cap the threads of jobs on the cluster's nodes.
    workflow.global_resources["_cores"] = None

try:
    where = ", ".join(map(str, workflow.configfiles)) or "config"
    RUN = parse_config(config, where, workflow.configfiles, workflow.config_settings.config)
    CACHE = cache.find_folder(RUN.cache.folder)
    if CACHE and (problem := RUN.describe_cache_fault(CACHE)):
        raise ConfigError(f"environment variable {cache.FOLDER_VARIABLE}: {problem}")
    require_folder(RUN.results, "results")
    require_folder(CACHE, "cache.folder")
except (ConfigError, UserError) as error:
    raise WorkflowError(str(error)) from None

R = RUN.run_folder
SOURCES = list(RUN.sources)
PHANTOMS = [s for s in SOURCES if RUN.sources[s].origin == "phantom"]
LOCAL = [s for s in SOURCES if RUN.sources[s].origin == "local"]
DOWNLOADED = [s for s in SOURCES if RUN.sources[s].origin == "download"]
MODELS = RUN.models
TINY = [name for name, model in MODELS.items() if model.tiny]
TUNED = [name for name, model in MODELS.items() if model.base]
FETCHED = [name for name, model in MODELS.items() if model.hub or model.path]
ENDPOINTS = [name for name, model in MODELS.items() if model.endpoint]
IMAGES = expand(f"{R}/images/{{source}}.images.parquet", source=SOURCES)
HELDOUT = list(RUN.heldout)
HUB_SETS = [name for name in HELDOUT if RUN.heldout[name].hub]
LOCAL_SETS = [name for name in HELDOUT if RUN.heldout[name].path]
HELDOUT_QA = expand(f"{R}/qa/heldout/{{name}}.parquet", name=HELDOUT)
BENCHMARK = f"{R}/qa/benchmark.heldout.parquet" if HELDOUT else f"{R}/qa/benchmark.parquet"  # what models are asked
COPIES = f"{R}/qa/copies.heldout.parquet" if HELDOUT else f"{R}/qa/copies.parquet"  # of its images in training
# Questions whose images are compared: all that sources make, before the splits are chosen, or the release's.
QUESTIONS = expand(f"{R}/qa/{{source}}{'.written' if RUN.qa.writer else ''}.parquet", source=SOURCES)
COMPARED = QUESTIONS if RUN.qa.origin == "generated" else [f"{R}/qa/train.parquet", f"{R}/qa/benchmark.parquet"]
SHOWN = [*IMAGES, *expand(f"{R}/images/{{name}}.images.parquet", name=HELDOUT)]  # images that it shows
PRETRAIN = [f"{R}/qa/pretrain.parquet"] if RUN.qa.pretrain else []

# What a SLURM profile asks for these two is for GPU jobs; where the config gives them none they ask for what other jobs ask.
for rule, gpus in {
    "tune": max((MODELS[name].tuning.gpus for name in TUNED), default=0),
    "predict": RUN.prediction.gpus,
}.items():
    if not gpus:
        workflow.resource_settings.overwrite_resources.pop(rule, None)

# The interpreter that runs Snakemake has the packages; inside a rule's conda environment it is that one's own.
PYTHON = "python" if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method else sys.executable
WORKING_FOLDER = Path.cwd()  # which Snakemake leaves before it ends
LIMIT = int(RUN.cache.limit_gb * 1e9)
install_patches()
MESSAGES = install_messages(workflow)
SCREEN = install_screen(workflow, MESSAGES)
THIS_RUN = register_run(Path(R), cache.Cache(Path(CACHE), LIMIT) if CACHE else None)
ENVIRONMENT = {"PYTHONPATH": WORKFLOW, "PYTHONUTF8": 1, cache.FOLDER_VARIABLE: CACHE, cache.LIMIT_VARIABLE: LIMIT}


wildcard_constraints:
    source="|".join(SOURCES),
    model="|".join(MODELS),
    part="pretrain|train",


# A path of the user's that is no input or output reaches rules by a function, as params: root=lambda w: raw_root(w.source).
# In any other place Snakemake would take braces in it for a wildcard.


def cfg(**values):
    """The part of the config that one program is given in a file; here the digest that stands for it."""
    return register_config({k: v.model_dump(mode="json") if hasattr(v, "model_dump") else v for k, v in values.items()})


def program(name, python=quote_word(PYTHON), is_shown=False):
    """First part of the shell command of a rule that starts a program of workflow/scripts. Each field after it is quoted.

    What the program says is shown, or else only logged.
    """
    return start_program(WORKFLOW / "scripts" / name, python, ENVIRONMENT, THIS_RUN, is_shown)


def base_of(model):
    """The model whose tokenizer and layout a model uses: its base, or itself."""
    return MODELS[model].base or model


def raw_root(source):
    """Folder of a source's files in their owner's layout."""
    return RUN.sources[source].path or (f"{R}/raw/{source}" if source in PHANTOMS else f"data/{source}")


def raw_index(source):
    """Table of a source's files."""
    return f"{R}/raw/{source}/files.parquet" if source in PHANTOMS else f"{R}/sources/{source}.parquet"


def heldout_index(name):
    """Table of the files of a further held-out set."""
    return f"{R}/raw/{name}/files.parquet" if name in HUB_SETS else f"{R}/sources/{name}.parquet"


def missing(source):
    """Table of what a source's owner no longer has, for those that were downloaded."""
    return [f"{R}/sources/{source}.missing.parquet"] if source in DOWNLOADED else []


def find_release():
    """Files that hold the user's copy of the release; none where it is downloaded."""
    from medmim.benchmarks.released.question_files import find_question_files

    try:
        return [str(path) for path in find_question_files(Path(RUN.qa.release.path))] if RUN.qa.release.path else []
    except UserError as error:
        raise WorkflowError(f"qa.release.path: {error}") from None


def named_by_release():
    """Tables of the release's questions: of the sources only images that they name are read."""
    return [f"{R}/qa/released/{split}.parquet" for split in ("train", "benchmark")] if RUN.qa.origin == "released" else []


def layout_of(model):
    """Index of the folder with the tokenizer and configuration of a base model."""
    return f"{R}/tokenizers/{model}/files.parquet" if model in TINY else f"{R}/models/{model}/files.parquet"


def longest(model):
    """Length limit of training samples: the least of the recipes that tune this base."""
    return min((m.tuning.max_length for m in MODELS.values() if m.base == model), default=8192)


def adapted(model):
    """Whether a model is an adapter upon its base; it is a whole model where it is no tuned one, or was tuned in full."""
    return MODELS[model].base is not None and MODELS[model].tuning.method == "lora"


def loaded(model):
    """What to load to have a model, by option of the program: its own folder, or its base's and the adapter upon it."""
    own = f"{R}/models/{model}/files.parquet"
    return {"model": f"{R}/models/{base_of(model)}/files.parquet", "adapter": own} if adapted(model) else {"model": own}


def together(model, value):
    """What to ask SLURM for where several processes train together; None, which asks for nothing, where one trains alone."""
    return value if MODELS[model].tuning.world_size > 1 else None


def must_fit(model):
    """Raise where a training needs more memory than its recipe says that each GPU has: before anything is queued."""
    base, tuning = MODELS[model].base, MODELS[model].tuning
    if tuning.gpus and tuning.gpu_memory_gb:
        try:
            config = architecture.find_config(MODELS[base].hub, f"{R}/models/{base}", MODELS[base].path)
            built = architecture.Architecture.from_config(*config)
        except architecture.UnknownArchitectureError:
            return  # of the hub, and known once it is fetched
        asked = memory.estimate_workload(RUN.qa.train.model_dump(), built.image_tokens)
        try:
            memory.require_gpu_memory(memory.plan_training(built, tuning, asked), model)
        except UserError as error:
            raise WorkflowError(str(error)) from None


def launcher(model):
    """Words that start a training: one process, or several, which SLURM starts where the job is one of its."""
    tuning = MODELS[model].tuning
    if tuning.world_size == 1:
        return [PYTHON]
    if "SLURM_JOB_ID" in os.environ and not workflow.is_main_process:
        processes = [f"--ntasks={tuning.world_size}", f"--ntasks-per-node={tuning.world_size // tuning.nodes}"]
        threads = f"--cpus-per-task={tuning.threads}"
        return ["srun", f"--nodes={tuning.nodes}", *processes, threads, "--kill-on-bad-exit=1", PYTHON]
    return [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(tuning.world_size)]


def tell_costs():
    """What the run cost, also of one that failed: SLURM's queue, time, memory, and which settings to change."""
    SCREEN.finish()
    if MESSAGES.made_outputs and Path(R, "logs").is_dir():
        run_script("costs.py")


def tell_result():
    """What the run shows, where its report was asked for."""
    if any(f"{R}/report.html" in job.output for job in workflow.dag.jobs):
        run_script("show_result.py")


MESSAGES.tell_result = tell_result


def run_script(name):
    """Run a program of workflow/scripts that only tells of this run."""
    command = [sys.executable, WORKFLOW / "scripts" / name, "--results", R]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(WORKFLOW)}, cwd=WORKING_FOLDER)
