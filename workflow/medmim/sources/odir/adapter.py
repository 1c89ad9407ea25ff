"""ODIR-5K: left and right fundus photographs of one person, with diagnostic keywords per eye and flags per person.

Pictures: both eyes of every person. Findings of each image: diagnosis (the eye's keywords). Of the person's one study:
age, sex, and the flags N (normal), D (diabetes), G (glaucoma), C (cataract), A (macular degeneration), H
(hypertension), M (myopia), O (other), each 0 or 1.
"""

from pathlib import Path

from medmim.sources.base import Fact, Picture, Rejection, SourceContents
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import find_one, parse_age, strip_decimal
from medmim.tables.outside_tables import read_rows

IMAGE_FOLDER = "Training Images"
FLAGS = ("N", "D", "G", "C", "A", "H", "M", "O")
EYES = {"L": "Left", "R": "Right"}
EYE_COLUMNS = tuple(f"{eye}-{what}" for eye in EYES.values() for what in ("Fundus", "Diagnostic Keywords"))
PERSON_COLUMNS = {"age": "Patient Age", "sex": "Patient Sex"}
COLUMNS = ("ID", *PERSON_COLUMNS.values(), *EYE_COLUMNS, *FLAGS)


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of an ODIR folder: full_df.csv (a row per eye) or data.xlsx (a row per person). Raises UserError."""
    table_path = find_one(root, "full_df.csv", "data.xlsx", "*/data.xlsx", "*/*/data.xlsx")
    image_folder = find_one(root, IMAGE_FOLDER, f"*/{IMAGE_FOLDER}", f"*/*/{IMAGE_FOLDER}").relative_to(root)
    table_name = table_path.relative_to(root).as_posix()
    contents = SourceContents()
    rows_by_person: dict[str, tuple[int, dict[str, str]]] = {}
    for number, row in enumerate(read_rows(table_path, COLUMNS), 1):
        item = f"{table_name} row {number}"
        person = strip_decimal(row["ID"])
        previous_number, previous_row = rows_by_person.get(person, (0, row))
        flags = {f: strip_decimal(row[f]) for f in FLAGS}
        problems = [f"{f} is {v!r}, neither 0 nor 1" for f, v in flags.items() if v not in ("0", "1")]
        problems += [f"{c} is empty" for c in ("ID", *EYE_COLUMNS) if not row[c]]
        problems += [
            f"{c} is {row[c]!r}, but {previous_row[c]!r} in row {previous_number}" for c in COLUMNS if row[c] != previous_row[c]
        ]
        if problems:
            contents.rejected.append(Rejection(item, "; ".join(problems), patient=person))
            continue
        if previous_number:
            continue  # the other eye's row of the same person, which says the same
        rows_by_person[person] = number, row
        for side, eye in EYES.items():
            picture = Picture(
                file=(image_folder / row[f"{eye}-Fundus"]).as_posix(),
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
        facts = {n: v for n, v in {"age": age, "sex": row["Patient Sex"]}.items() if v} | flags
        for fact, value in facts.items():
            contents.facts.append(Fact(name=fact, value=value, patient=person, study=person, table=table_name, row=number))
    return contents
