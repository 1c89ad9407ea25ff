"""What owners allow with their data and models, as they published it, and where that was read.

A help to read the terms, not advice; `checked` tells what the owner's own text was read for and what was not.
"""

from dataclasses import dataclass


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


SOURCES = {
    "embed": Licence(
        "EMBED",
        "EMBED Research Use Agreement",
        "Non-commercial research only. Models or weights trained on any part of it may not be released publicly or "
        "commercialised without written permission of Emory University School of Medicine (its clause 5).",
        "EMBED_license.md in github.com/Emory-HITI/EMBED_Open_Data",
        True,
    ),
    "lumiere": Licence(
        "LUMIERE",
        "stated in two ways: CC0 at the figshare items, non-commercial use in the README beside them",
        "Until the owner settles it, take it as non-commercial, with attribution.",
        "figshare collection 10.6084/m9.figshare.c.5904905, as others report it",
        False,
    ),
    "ms_cxr_t": Licence(
        "MS-CXR-T and MIMIC-CXR-JPG",
        "PhysioNet Credentialed Health Data License 1.5.0",
        "For credentialed users who signed the agreement; access to the data may not be shared. PhysioNet has guidelines for "
        "models derived from MIMIC: read them before such a model is given to anyone.",
        "physionet.org/content/ms-cxr-t/1.0.0 (credentialed access), its data use agreement 1.5.0, its news of 2024-04-24; "
        "the licence's version as others report it",
        False,
    ),
    "pmc": Licence(
        "LLaVA-Med's instruction data, from PMC-15M",
        "CC BY-NC 4.0",
        "Models trained on it are for research only, and not for clinical care. Each figure keeps its article's own licence.",
        "README of github.com/microsoft/LLaVA-Med",
        True,
    ),
    "vqa_rad": Licence(
        "VQA-RAD",
        "CC0 1.0",
        "No condition.",
        "osf.io/89kps, as the data set's card on the hub (flaviagiammarino/vqa-rad) has it",
        False,
    ),
    "odir": Licence(
        "ODIR-5K",
        "not found: terms of the challenge and of Kaggle's copy",
        "Ask the owner before anything made of it is passed on.",
        "github.com/nkicsl/OIA-ODIR, whose description names no licence",
        False,
    ),
}
"""By source of the config."""

LLAMA_3 = Licence(
    "Meta Llama 3",
    "Meta Llama 3 Community License",
    "Who passes on a model made of it gives a copy of the licence, shows “Built with Meta Llama 3”, and begins the model's "
    "name with “Llama 3”.",
    "the licence's section 1.b",
    True,
)
BASES = {
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


def of(sources: dict[str, str], hub: str | None) -> list[Licence]:
    """What binds a model: terms of its base, and of the sources by origin; phantoms, which are drawn here, have none."""
    return [*BASES.get(hub or "", ()), *(SOURCES[name] for name, origin in sources.items() if origin != "phantom")]
