"""What makes a folder of medmim/sources a source, and the one place that imports a source's modules.

A source is a folder that holds
    source.yaml     facts: medmim.config.source_plugins.Source
    adapter.py      the owner's files become pictures and findings: medmim.sources.base.Adapter
    questions.py    findings become questions: medmim.questions.generate.QuestionModule, and PretrainModule where it declares the
                    set single; not needed for released questions
    phantom.py      draws a synthetic cohort: Phantom, below; needed for the origin phantom only
    download.py     fetches it from its owner: medmim.download.source_folder.SourceDownload; for the origin download only
It is registered by being there. docs/extending.md is a recipe.
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from medmim.common.errors import UserError


class Phantom(Protocol):
    """What phantom.py offers."""

    def write_cohort(self, folder: Path, *, patients: int, seed: int) -> None:
        """Write a cohort in the owner's layout and formats; equal arguments write equal bytes.

        phantom_truth.csv (path, name, value) states what was drawn, for the questions that tiny models are trained on.
        """


def load_part(source: str, part: str, contract: type) -> Any:
    """Import a module of a source and check that it offers what `contract`, a Protocol, asks. Raises UserError."""
    name = f"medmim.sources.{source}.{part}"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # the module is there, and something that it imports is not
        raise UserError(f"source {source} has no module {name}; docs/extending.md tells what it must offer") from None
    if gaps := check_contract(module, contract):
        raise UserError(f"{name} is not complete: {'; '.join(gaps)}. docs/extending.md tells what it must offer")
    return module


def check_contract(module: object, contract: type) -> list[str]:
    """What a module lacks of the functions of a Protocol, in words."""
    gaps = []
    for name, wanted in inspect.getmembers(contract, inspect.isfunction):
        if name.startswith("_"):
            continue
        parameters = [p for p in inspect.signature(wanted).parameters.values() if p.name != "self"]
        signature = f"{name}({', '.join(p.name for p in parameters)})"
        function = getattr(module, name, None)
        if not inspect.isroutine(function):
            gaps.append(f"there is no function {signature}")
            continue
        try:
            inspect.signature(function).bind(
                *(None for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD),
                **{p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY},
            )
        except TypeError as error:
            gaps.append(f"{signature} can't be called so: {error}")
    return gaps
