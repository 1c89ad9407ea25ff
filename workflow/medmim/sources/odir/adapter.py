"""ODIR-5K: left and right fundus photographs of one person, with diagnostic keywords per eye and flags per person.

Pictures: both eyes of every person. Findings of each image: diagnosis (the eye's keywords). Of the person's one study:
age, sex, and the flags N (normal), D (diabetes), G (glaucoma), C (cataract), A (macular degeneration), H
(hypertension), M (myopia), O (other), each 0 or 1.
"""

from pathlib import Path

from medmim.sources.base import Fact, Picture, Plan, Rejection
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import one, table, whole_number

IMAGES = "Training Images"
FLAGS = ("N", "D", "G", "C", "A", "H", "M", "O")
EYES = {"L": "Left", "R": "Right"}
EYE = tuple(f"{eye}-{what}" for eye in EYES.values() for what in ("Fundus", "Diagnostic Keywords"))
PERSON = {"age": "Patient Age", "sex": "Patient Sex"}
COLUMNS = ("ID", *PERSON.values(), *EYE, *FLAGS)


def plan(root: Path) -> Plan:
    """Pictures and facts of an ODIR folder: full_df.csv (a row per eye) or data.xlsx (a row per person). Raises UserError."""
    path = one(root, "full_df.csv", "data.xlsx", "*/data.xlsx", "*/*/data.xlsx")
    images = one(root, IMAGES, f"*/{IMAGES}", f"*/*/{IMAGES}").relative_to(root)
    name = path.relative_to(root).as_posix()
    made = Plan()
    seen: dict[str, tuple[int, dict[str, str]]] = {}
    for number, row in enumerate(table(path, COLUMNS), 1):
        item = f"{name} row {number}"
        person = whole_number(row["ID"])
        number_before, before = seen.get(person, (0, row))
        flags = {f: whole_number(row[f]) for f in FLAGS}
        odd = [f"{f} is {v!r}, neither 0 nor 1" for f, v in flags.items() if v not in ("0", "1")]
        odd += [f"{c} is empty" for c in ("ID", *EYE) if not row[c]]
        odd += [f"{c} is {row[c]!r}, but {before[c]!r} in row {number_before}" for c in COLUMNS if row[c] != before[c]]
        if odd:
            made.rejected.append(Rejection(item, "; ".join(odd), patient=person))
            continue
        if number_before:
            continue  # the other eye's row of the same person, which says the same
        seen[person] = number, row
        for side, eye in EYES.items():
            picture = Picture(
                file=(images / row[f"{eye}-Fundus"]).as_posix(),
                read=raster.read,
                patient=person,
                study=person,
                view="fundus",
                laterality=side,
                modality="fundus",
                release_path=f"{IMAGES}/{row[f'{eye}-Fundus']}",
                item=item,
            )
            made.pictures.append(picture)
            made.state(picture, name, number, {"diagnosis": row[f"{eye}-Diagnostic Keywords"]})
        stated = {n: row[c] for n, c in PERSON.items() if row[c]} | flags
        for fact, value in stated.items():
            made.facts.append(Fact(name=fact, value=value, patient=person, study=person, table=name, row=number))
    return made
