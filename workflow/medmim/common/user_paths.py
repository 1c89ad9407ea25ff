"""Paths as users write them: in the config, in the environment."""

import unicodedata
from pathlib import Path

from medmim.common.errors import UserError

UNPRINTABLE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
"""Control characters, halves of characters and line breaks, as Unicode calls them."""


def expand_path(text: str) -> str:
    """A path with ~ and ~user expanded, without slashes and dots that say nothing; raises ValueError where it can't be one.

    Any other character stands for itself. A relative path is one of the working directory.
    """
    if not text:
        raise ValueError("is empty: leave it out, or give a path")
    if unprintable := next((c for c in text if unicodedata.category(c) in UNPRINTABLE_CATEGORIES), None):
        raise ValueError(f"{text!r} holds the character {unprintable!r}, which tables and logs can't show: rename the folder")
    try:
        path = Path(text).expanduser().as_posix()
    except RuntimeError:
        raise ValueError(f"{text!r}: the home folder of {text.split('/')[0]} is not known here: give the whole path") from None
    if path.startswith("-"):
        raise ValueError(f"{text!r} starts with -, which programs take for an option: give the whole path")
    return path


def require_folder(path: str, setting: str) -> None:
    """Raise UserError where a folder that is made when it is needed can't be: a file, or a link to nowhere, has its name."""
    place = Path(path)
    if place.is_symlink() and not place.exists():
        raise UserError(f"{setting}: {path} is a link to {place.readlink()}, which is not there: make that folder")
    if place.exists() and not place.is_dir():
        raise UserError(f"{setting}: {path} is a file: give a folder")
