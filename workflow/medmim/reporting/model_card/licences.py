"""What the owners of a model's base and data allow, as they published it, and where that was read.

A help to read the terms, not advice; `checked` tells what the owner's own text was read for and what was not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Licence:
    """Terms of one owner."""

    name: str
    """Of what is licensed."""
    terms: str
    """The licence's name."""
    says: str
    """What matters for a model that was trained on it, or made of it."""
    source: str
    """Where it was read."""
    checked: bool
    """Whether the owner's own text was read for this, or it is passed on from others."""


LLAMA_3 = Licence(
    "Meta Llama 3",
    "Meta Llama 3 Community License",
    "Who passes on a model made of it gives a copy of the licence, shows “Built with Meta Llama 3”, and begins the model's "
    "name with “Llama 3”.",
    "the licence's section 1.b",
    True,
)
BASE_LICENCES = {
    "TIGER-Lab/Mantis-8B-siglip-llama3": (
        Licence("Mantis-8B-siglip-llama3", "llama3", "As Llama 3.", "its page on the hub", True),
        LLAMA_3,
    ),
    "chaoyinshe/llava-med-v1.5-mistral-7b-hf": (
        Licence(
            "LLaVA-Med v1.5",
            "that of Mistral-7B-Instruct-v0.2",
            "Intended for research only, not for clinical care; every deployed use is out of scope.",
            "card of microsoft/llava-med-v1.5-mistral-7b; the conversion's own page was not read",
            True,
        ),
        Licence("Mistral-7B-Instruct-v0.2", "Apache-2.0", "No condition beside notice.", "its page on the hub, as known", False),
    ),
}
"""By the base's repository on the hub."""


def list_licences(providers: Mapping[str, Mapping[str, Any]], hub: str | None) -> list[Licence]:
    """What binds a model: terms of its base, and of its real sources, as medmim.config.source_plugins.Terms has them."""
    return [
        *BASE_LICENCES.get(hub or "", ()),
        *(Licence(p["title"], p["licence"], p["model_terms"], p["terms"], p["is_verified"]) for p in providers.values()),
    ]
