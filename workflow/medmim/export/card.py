"""What every export says of itself: what is in it, whose it is, and who may have it."""

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medmim.export.questions import QuestionRow, Questions
from medmim.questions.sets import find_set_group

if TYPE_CHECKING:
    from medmim.export.datasheet import Datasheet


def build_licence_header(questions: Questions) -> dict[str, str]:
    """Licence of the whole, in the terms of a dataset card."""
    if questions.licences.keys() <= questions.synthetic:
        return {"license": "apache-2.0"}
    return {"license": "other", "license_name": "terms-of-each-source", "license_link": "README.md"}


def _count_patients(rows: list[QuestionRow]) -> int:
    return len({patient for row in rows for patient in row["patient_ids"]})


def render_card(questions: Questions, usage: str, sheet: "Datasheet | None" = None) -> str:
    """Markdown; `usage` says how this tool is called, `sheet` is the datasheet that the card ends with."""
    rows = questions.rows
    synthetic_sources = [name for name in questions.licences if name in questions.synthetic]
    synthetic_label = (
        "Everything here"
        if len(synthetic_sources) == len(questions.licences)
        else f"What is from {', '.join(synthetic_sources)}"
        if synthetic_sources
        else ""
    )
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    env.filters["count"] = "{:,}".format
    return env.get_template("card.md.j2").render(
        name=questions.name,
        run=questions.run,
        questions=len(rows),
        images=len({i for row in rows for i in row["image_ids"]}),
        patients=_count_patients(rows),
        credentialed=[f"{count:,} of {questions.describe_owner(name)}" for name, count in sorted(questions.credentialed.items())],
        synthetic=synthetic_label,
        use=usage.strip(),
        sets=[
            {
                "name": name,
                "part": "train" if questions.split == "train" else find_set_group(name).replace("_", "-"),
                "closed": sum(row["kind"] == "closed" for row in of_set),
                "open": sum(row["kind"] == "open" for row in of_set),
                "patients": _count_patients(of_set),
            }
            for name, of_set in questions.sets.items()
        ],
        sources=[
            {
                "name": name,
                "questions": questions.sources[name],
                "what": questions.describe_owner(name),
                "licence": questions.format_licence(name),
            }
            for name in questions.licences
        ],
        sheet=sheet,
    )
