"""Version of the engine, which stands in every job's key in place of the engine's code."""

import sys
from collections.abc import Mapping
from typing import Any

# The engine (medmim.provenance, medmim.snakemake_hooks, and what these use of medmim.common and medmim.tables) is in no code
# digest, so a change of it computes nothing again. Raise this number by one when a change of the engine lets a job leave other
# outputs, records or keys than before: old results are then stale, told as "engine version 1 → 2", and computed again. Leave
# it for everything else: waiting times, messages, speed, new checks. tests/unit/provenance/test_engine_version.py notices what
# the engine writes differently.
ENGINE_VERSION = 4

PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Python's version as far as results depend on it."""


def describe_engine_changes(record: Mapping[str, Any]) -> str | None:
    """Say what differs between the engine that wrote a record and this one, None for nothing."""
    if record["engine_version"] != ENGINE_VERSION:
        return f"engine version {record['engine_version']} → {ENGINE_VERSION}"
    if record["python"] != PYTHON_VERSION:
        return f"Python {record['python']} → {PYTHON_VERSION}"
    return None
