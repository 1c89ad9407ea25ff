"""The composed subset: single-image questions about figures of papers, two or three of them joined into one."""

from collections.abc import Iterator

from medmim.qa.cohort import Patient, Ring, position
from medmim.qa.templates import Fact, Template
from medmim.qa.turns import evidence, numbered, turns

SPLITS = ("train",)
DOMAINS = {
    "chest_xray": "chest X-ray",
    "mri": "MRI",
    "histology": "histology",
    "gross": "gross pathology",
    "ct_scan": "CT scan",
}

COMPOSED = Template(
    task="pmc_composed",
    ability="composed",
    open_wordings=(
        "Answer one question for each image. {questions}",
        "{questions} Answer for every image.",
        "Look at the images in turn. {questions}",
        "Each image has its own question. {questions}",
        "Go through the images one by one. {questions}",
        "{questions} Give the answers in order of the images.",
        "Read each image and answer. {questions}",
    ),
)
DOMAIN = Template(
    task="pretrain_pmc_domain",
    ability="single",
    most=5,
    wordings=("What kind of image is this?", "Which type of medical image is shown?", "Name the kind of this image."),
    styles=(DOMAINS,),
)
ALONE = Template(task="pretrain_pmc_turn", ability="single", open_wordings=("{question}",))


def facts(patients: list[Patient]) -> Iterator[Fact]:
    """Every turn once as the first of two or three, the others from other papers and, where there are, of one domain."""
    every = [t for p in patients for i in p.images() for t in turns(i)]
    domain = {i.image_id: found.value for p in patients for i in p.images() if (found := i.one("domain"))}
    rings = {
        d: Ring([t for t in every if domain.get(t.image.image_id, "") == d], key=lambda t: t.key)
        for d in sorted({*domain.values(), ""})
    }
    for turn in every:
        n = 1 + position(turn.key) % 2
        ring = rings[domain.get(turn.image.image_id, "")]
        joined = [turn, *ring.draw(n, {turn.image.patient_id}, lambda t: t.image.patient_id, turn.key)]
        if len(joined) == n + 1:
            yield Fact(
                COMPOSED,
                tuple(t.image for t in joined),
                findings=evidence(joined),
                asked={"questions": numbered(t.question for t in joined)},
                answer=numbered(t.answer for t in joined),
            )


def singles(patients: list[Patient]) -> Iterator[Fact]:
    """The turns as they are, and the kind of image."""
    for image in (i for p in patients for i in p.images()):
        for turn in turns(image):
            yield Fact(ALONE, (image,), findings=turn.findings, asked={"question": turn.question}, answer=turn.answer)
        found = image.one("domain")
        if found and found.value in DOMAINS:
            yield Fact(DOMAIN, (image,), found.value, tuple(DOMAINS), (found.id,))
