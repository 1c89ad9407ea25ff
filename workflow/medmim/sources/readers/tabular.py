"""What the adapters share in reading owners' folders and the cells of their tables (medmim.tables.outside_tables)."""

import re
from datetime import date
from pathlib import Path

from medmim.common.errors import UserError
from medmim.common.watched_paths import list_matches

FIRST_YEAR, LAST_YEAR = 1901, 2300
"""Dates outside are codes for a missing one (1900-01-01, 9999-12-31); MIMIC's are shifted as far as 2212."""
DAY_PATTERN = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[ T]\d{2}:\d{2}.*)?")
MAX_AGE = 120
"""Years."""
MISSING_VALUES = frozenset(("", "na", "n/a", "nan", "none", "null", "nil", "unknown", "-", "?", "."))


def find_one(root: Path, *patterns: str) -> Path:
    """The file or folder below `root` that the first matching glob pattern names. Raises UserError for none or several."""
    for pattern in patterns:
        matches = list_matches(root, pattern)
        if len(matches) > 1:
            raise UserError(f"{root}: {len(matches)} places match {pattern}, expected one: {', '.join(p.name for p in matches)}")
        if matches:
            return matches[0]
    raise UserError(f"{root}: no {' or '.join(patterns)} here; expected the folder in its owner's layout")


def strip_decimal(text: str) -> str:
    """An id or code without the '.0' that spreadsheets and pandas append to whole numbers."""
    return re.sub(r"^(\d+)\.0$", r"\1", text)


def parse_day(text: str) -> date:
    """The date of 'YYYY-MM-DD', or of that and a time. Raises ValueError."""
    try:
        if (match := DAY_PATTERN.fullmatch(text)) and FIRST_YEAR <= (day := date.fromisoformat(match[1])).year <= LAST_YEAR:
            return day
    except ValueError:  # such as the 30th of February
        pass
    raise ValueError(f"{text!r} is no date from {FIRST_YEAR} to {LAST_YEAR}")


def parse_age(text: str) -> str:
    """An age in years as it is written, without '.0', empty where it is missing or withheld. Raises ValueError for no age.

    Missing are empty cells, words for it, and codes of nines such as -9, 999 and -999; withheld are open ends ('89+', '>89').
    """
    age = strip_decimal(text)
    if age.lower() in MISSING_VALUES or re.fullmatch(r"-9+|999+|-1|>=? ?\d+|\d+ ?\+", age.removesuffix(".0")):
        return ""
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", age) or float(age) > MAX_AGE:
        raise ValueError(f"{text!r} is no age from 0 to {MAX_AGE} years")
    return age
