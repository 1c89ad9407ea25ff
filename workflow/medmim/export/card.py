"""What every export says of itself: what is in it, whose it is, and who may have it."""

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medmim.export.questions import Questions, Row, group
from medmim.sources.terms import OWNERS

if TYPE_CHECKING:
    from medmim.export.datasheet import Datasheet

OTHERS = {"medframeqa": "MedFrameQA, SuhaoYu1020/MedFrameQA", "medxpertqa": "MedXpertQA MM, TsinghuaC3I/MedXpertQA"}
"""Sources beside the six, by name."""


def owner(questions: Questions, source: str) -> str:
    """Whose a source is."""
    if source in questions.synthetic:
        return "phantoms, synthetic"
    return OWNERS[source].name if source in OWNERS else OTHERS.get(source, source)


def licence(questions: Questions) -> dict[str, str]:
    """Licence of the whole, in the terms of a dataset card."""
    if questions.licences.keys() <= questions.synthetic:
        return {"license": "apache-2.0"}
    return {"license": "other", "license_name": "terms-of-each-source", "license_link": "README.md"}


def _patients(rows: list[Row]) -> int:
    return len({patient for row in rows for patient in row["patient_ids"]})


def text(questions: Questions, use: str, sheet: "Datasheet | None" = None) -> str:
    """Markdown; `use` says how this tool is called, `sheet` is the datasheet that the card ends with."""
    rows = questions.rows
    made = [name for name in questions.licences if name in questions.synthetic]
    drawn = "Everything here" if len(made) == len(questions.licences) else f"What is from {', '.join(made)}" if made else ""
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    env.filters["count"] = "{:,}".format
    return env.get_template("card.md.j2").render(
        name=questions.name,
        run=questions.run,
        questions=len(rows),
        images=len({i for row in rows for i in row["image_ids"]}),
        patients=_patients(rows),
        credentialed=[f"{count:,} of {owner(questions, name)}" for name, count in sorted(questions.credentialed.items())],
        synthetic=drawn,
        use=use.strip(),
        sets=[
            {
                "name": name,
                "part": "train" if questions.split == "train" else group(name).replace("_", "-"),
                "closed": sum(row["kind"] == "closed" for row in of_set),
                "open": sum(row["kind"] == "open" for row in of_set),
                "patients": _patients(of_set),
            }
            for name, of_set in questions.sets.items()
        ],
        sources=[
            {
                "name": name,
                "questions": questions.sources[name],
                "what": owner(questions, name),
                "licence": questions.licence(name),
            }
            for name in questions.licences
        ],
        sheet=sheet,
    )
