"""ODIR-5K: left and right fundus photographs of one person, with diagnostic keywords per eye and flags per person.

Two owners' layouts are read, and merged where both are there. The challenge's: ODIR-5K_Training_Annotations(Updated)_V2.xlsx, a
row per person, and photographs in ODIR-5K_Training_Images or ODIR-5K_Training_Dataset, one in the other or not. Kaggle's:
full_df.csv, a row per eye, which lacks some persons; data.xlsx, a row per person; photographs in Training Images.

Pictures: both eyes of every person. Findings of each image: diagnosis (the eye's keywords). Of the person's one study:
age, sex, and the flags N (normal), D (diabetes), G (glaucoma), C (cataract), A (macular degeneration), H
(hypertension), M (myopia), O (other), each 0 or 1.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from medmim.common.errors import UserError
from medmim.common.files import is_inside_folder
from medmim.common.outside_files import is_file
from medmim.common.watched_paths import list_matches
from medmim.sources.base import Fact, Picture, Rejection, SourceContents, order_patients
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import find_one, parse_age, strip_decimal
from medmim.tables.outside_tables import read_rows

IMAGE_FOLDER = "Training Images"
"""Kaggle's, by which the release names the photographs."""
IMAGE_FOLDERS = (IMAGE_FOLDER, "ODIR-5K_Training_Dataset", "ODIR-5K_Training_Images")
TABLES = ("full_df.csv", "data.xlsx", "ODIR-5K_Training_Annotations*.xlsx")
"""Where several tables have a person, the first counts."""
MAX_DEPTH = 2
"""Folders between the source's folder and a table or a folder of photographs."""
FLAGS = ("N", "D", "G", "C", "A", "H", "M", "O")
EYES = {"L": "Left", "R": "Right"}
EYE_COLUMNS = tuple(f"{eye}-{what}" for eye in EYES.values() for what in ("Fundus", "Diagnostic Keywords"))
PERSON_COLUMNS = {"age": "Patient Age", "sex": "Patient Sex"}
RELEASE_PATTERN = re.compile(rf"{IMAGE_FOLDER}/((\d+)_(left|right)\.jpg)")
COLUMNS = ("ID", *PERSON_COLUMNS.values(), *EYE_COLUMNS, *FLAGS)


def _list_depths(name: str) -> list[str]:
    return ["*/" * depth + name for depth in range(MAX_DEPTH + 1)]


def _find_tables(root: Path) -> list[Path]:
    """The tables that are there, at least one. Raises UserError."""
    patterns_by_table = [[p for p in _list_depths(name) if list_matches(root, p)] for name in TABLES]
    tables = [find_one(root, *patterns) for patterns in patterns_by_table if patterns]
    if not tables:
        raise UserError(f"{root}: no {' or '.join(TABLES)} here; expected the folder in its owner's layout")
    return tables


class _PhotographFolders:
    """The folders of photographs below a source's folder."""

    def __init__(self, root: Path) -> None:
        folders = [
            folder for name in IMAGE_FOLDERS for pattern in _list_depths(f"{name}/") for folder in list_matches(root, pattern)
        ]
        if not folders:
            raise UserError(f"{root}: no {' or '.join(IMAGE_FOLDERS)} here; expected the folder in its owner's layout")
        self._folders = folders
        self._root = root

    def locate_photograph(self, name: str, is_wanted: bool) -> str:
        """Path of a photograph below the source's folder; in the first folder where it is in none, or not wanted."""
        can_be_there = is_wanted and is_inside_folder(name)
        folder = next((f for f in self._folders if can_be_there and is_file(f / name)), self._folders[0])
        return f"{folder.relative_to(self._root).as_posix()}/{name}"


def _iter_rows(root: Path) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Name of the table, number and cells of every row of all tables, ids and numbers without '.0'."""
    for table in _find_tables(root):
        for number, row in enumerate(read_rows(table, COLUMNS), 1):
            yield table.relative_to(root).as_posix(), number, {column: strip_decimal(row[column]) for column in COLUMNS}


def _find_problems(row: dict[str, str], previous_row: dict[str, str], previous_item: str) -> list[str]:
    """What is wrong with a row, in words; also where it does not say what a row before it said of the same person."""
    problems = [f"{f} is {row[f]!r}, neither 0 nor 1" for f in FLAGS if row[f] not in ("0", "1")]
    problems += [f"{c} is empty" for c in ("ID", *EYE_COLUMNS) if not row[c]]
    return problems + [
        f"{c} is {row[c]!r}, but {previous_row[c]!r} in {previous_item}" for c in COLUMNS if row[c] != previous_row[c]
    ]


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of an ODIR folder, of Kaggle's layout, the challenge's or both. Raises UserError."""
    return read_limited_contents(root, None)


def read_limited_contents(root: Path, limit: int | None) -> SourceContents:
    """As `read_contents`; photographs of persons beyond the limit are not looked for."""
    contents = SourceContents()
    rows = list(_iter_rows(root))
    persons = {row["ID"] for _, _, row in rows if not _find_problems(row, row, "")}
    wanted_persons = set(order_patients(persons)[:limit])
    folders = _PhotographFolders(root)
    rows_by_person: dict[str, tuple[str, dict[str, str]]] = {}
    for table_name, number, row in rows:
        item, person = f"{table_name} row {number}", row["ID"]
        previous_item, previous_row = rows_by_person.get(person, ("", row))
        if problems := _find_problems(row, previous_row, previous_item.removeprefix(f"{table_name} ")):
            contents.rejected.append(Rejection(item, "; ".join(problems), patient=person))
            continue
        if previous_item:
            continue  # the other eye's row, or another table's, of the same person, which says the same
        rows_by_person[person] = item, row
        for side, eye in EYES.items():
            picture = Picture(
                file=folders.locate_photograph(row[f"{eye}-Fundus"], person in wanted_persons),
                read_pixels=raster.read_pixels,
                patient=person,
                study=person,
                view="fundus",
                laterality=side,
                modality="fundus",
                release_path=f"{IMAGE_FOLDER}/{row[f'{eye}-Fundus']}",
                item=item,
            )
            contents.pictures.append(picture)
            contents.add_facts(picture, table_name, number, {"diagnosis": row[f"{eye}-Diagnostic Keywords"]})
        try:
            age = parse_age(row["Patient Age"])
            if not age:
                contents.skipped["Patient Age that is missing or withheld"] += 1
        except ValueError as error:  # the photographs are none the worse for it
            age = ""
            contents.skipped[f"Patient Age {error}"] += 1
        facts = {n: v for n, v in {"age": age, "sex": row["Patient Sex"]}.items() if v} | {f: row[f] for f in FLAGS}
        for fact, value in facts.items():
            contents.facts.append(Fact(name=fact, value=value, patient=person, study=person, table=table_name, row=number))
    return contents


def add_released_pictures(root: Path, contents: SourceContents, paths: Collection[str]) -> None:
    """Add the photographs that the release names and no table does, as where Kaggle's lacks the person, by their names."""
    known_paths = {p.release_path for p in contents.pictures}
    folders = _PhotographFolders(root)
    for path in sorted(set(paths) - known_paths):
        if match := RELEASE_PATTERN.fullmatch(path):
            picture = Picture(
                file=folders.locate_photograph(match[1], is_wanted=True),
                read_pixels=raster.read_pixels,
                patient=match[2],
                study=match[2],
                view="fundus",
                laterality="L" if match[3] == "left" else "R",
                modality="fundus",
                release_path=path,
            )
            contents.pictures.append(picture)
