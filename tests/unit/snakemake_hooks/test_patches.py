"""What is patched of Snakemake. What runs and why: tests/workflow/test_other_rules.py and test_mutations.py."""

import subprocess
import sys
from pathlib import Path


def test_sigterm_while_snakemake_is_at_its_books(tmp_path: Path) -> None:
    """It ends after the job, as at other times; without our mending it waits for itself, for ever."""
    (tmp_path / "Snakefile").write_text("""
import os
import signal
from pathlib import Path
from snakemake.persistence.file import FilePersistence
from medmim.snakemake_hooks.patches import install_patches

install_patches()
finished = FilePersistence.finished

def told_to_stop(*arguments, **options):
    assert workflow.scheduler._lock.locked()
    os.kill(os.getpid(), signal.SIGTERM)
    return finished(*arguments, **options)

FilePersistence.finished = told_to_stop

rule all:
    input: "second"
rule first:
    output: "first"
    shell: "touch {output}"
rule second:
    input: "first"
    output: "second"
    shell: "touch {output}"
""")
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 1 and "Will exit after finishing currently running jobs" in run.stderr, run.stderr
    assert (tmp_path / "first").exists() and not (tmp_path / "second").exists()
