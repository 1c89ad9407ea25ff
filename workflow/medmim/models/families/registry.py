"""The model families: prompt layout and image preprocessing of each, found by being there.

    base        Family and Layout: prompt to token ids, image to pixels, without torch
    llava_med   mantis          the two families that are trained here
    prompter    how a model is asked, whatever its family
    chat        any other model, by its own processor, to predict only

A family is named as in the config ("llava-med"); its module is imported by name, so that a change to one family's layout
is no change to the other's code digest: a rule plans with `family_module(family)`, a program's Job gets `FAMILY_MODULE`.

Another model of a family is an entry under `models` in the config: family, and hub or path. A model that transformers can load
with a processor and chat template is of family chat. Another family to be trained is a module here that defines FAMILY:
docs/extending.md has the recipe.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from medmim.config.part_names import MODEL_FAMILIES, find_nearest

if TYPE_CHECKING:
    from medmim.models.families.base import Family

FAMILIES = MODEL_FAMILIES
"""Those with a layout of their own, which can be trained here."""
FAMILY_MODULE = "medmim.models.families.{cfg[family]}"
"""For `Job(modules=[FAMILY_MODULE])` of a program whose cfg names the family."""


def family_module(family: str) -> str:
    """Dotted name of a family's module, for a code digest. Raises ValueError for an unknown family."""
    known_families = (*FAMILIES, "chat")
    if family not in known_families:
        raise ValueError(f"no model family {family!r}; {find_nearest(family, known_families)}")
    return f"medmim.models.families.{family.replace('-', '_')}"


def get_family(name: str) -> "Family":
    """The `base.Family` of that name. Raises ValueError for an unknown one, and for chat, which has no layout of its own."""
    if name == "chat":
        raise ValueError("family chat lays out its prompts by the model's own processor: it can predict, not be trained here")
    instance: Family = import_module(family_module(name)).FAMILY
    if instance.name != name:
        raise ValueError(f"{family_module(name)}: its FAMILY is named {instance.name!r}, expected {name!r}, as the module is")
    return instance
