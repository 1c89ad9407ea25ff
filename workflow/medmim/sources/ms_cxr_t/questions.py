"""Questions about pairs of chest radiographs (MS-CXR-T): has a finding improved, worsened, or not changed?

The closed form is the release's `vqa`, the open one its `conv`; each of the five findings is a task of its own.
"""

from collections.abc import Iterator

from medmim.questions.cohort import Image, Patient
from medmim.questions.templates import Fact, Template

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
CHANGES = ("improving", "stable", "worsening")
SEVERITIES = ("mild", "moderate", "severe")

CHANGE_MEANINGS = {
    "improving": "It is less extensive or less severe in the follow-up X-ray than it was in the earlier one.",
    "stable": "Neither its extent nor its severity differs clearly between the earlier X-ray and the follow-up.",
    "worsening": "It is more extensive or more severe in the follow-up X-ray than it was in the earlier one.",
}
CONTEXTS = (
    "You see two chest X-rays of one patient, in order of time.",
    "These two chest radiographs are of the same patient.",
    "The images are a chest X-ray and its follow-up.",
    "One patient had two chest X-rays, of which the first image is the earlier.",
    "Both images are chest X-rays of one person, taken at different times.",
    "An earlier and a later chest X-ray of a patient are given.",
    "The second of these chest X-rays was taken after the first.",
    "Here are a prior and a current chest radiograph.",
    "Compare the two chest X-rays of this patient.",
    "A patient's chest was imaged twice.",
    "Image 1 is the prior and image 2 the current chest X-ray.",
    "The chest X-rays shown were taken one after the other.",
    "Look closely at both chest X-rays.",
    "Two examinations of the same chest are shown.",
    "The images belong to one patient, and the later one comes second.",
    "This is a pair of chest X-rays for comparison.",
)
"""Sentences in front of a wording that does not say itself what is shown."""

PAIR_TEMPLATES = {
    finding: Template(
        task=f"ms_cxr_t_vqa_{finding}",
        open_task=f"ms_cxr_t_conv_{finding}",
        ability="comparison",
        wordings=(
            "Two chest X-rays of one patient are shown, the earlier first. How has the {finding} changed?",
            "How does the {finding} in the second X-ray compare with that in the first?",
            "What is the state of the {finding} in the second X-ray, compared with the first?",
            "Compare the two X-rays. Which word describes the {finding}?",
            "The second X-ray is a follow-up. How is the {finding} in it?",
            "From the first to the second image, how has the {finding} developed?",
            "Which word describes the {finding} in the second X-ray, relative to the first?",
        ),
        further=(
            "How would you describe the course of the {finding} across these two X-rays?",
            "Relative to the earlier X-ray, what is the state of the {finding}?",
            "How has the {finding} changed between the two examinations?",
            "Judged against the earlier X-ray, how is the {finding} on the later one?",
            "Is there a change in the {finding}? Choose the word that fits.",
            "The images are in order of time. How has the {finding} developed?",
            "Taking the first image as the baseline, how is the {finding} in the second?",
            "Which term would a follow-up report use for the {finding}?",
            "Assess the interval change of the {finding}.",
            "How is the {finding} on the current X-ray compared with the prior one?",
            "Look at the {finding} in both images. What is its trend?",
            "What does the comparison of both radiographs say about the {finding}?",
            "At follow-up, how is the patient's {finding}?",
            "How has this patient's {finding} developed?",
            "Which word sums up the course of the {finding} since the prior radiograph?",
        ),
        styles=(
            {"improving": "improving", "stable": "stable", "worsening": "worsening"},
            {"improving": "improved", "stable": "unchanged", "worsening": "worse"},
        ),
        open_wordings=(
            "Describe how the {finding} changed between the two X-rays.",
            "What can you say about the {finding} in the follow-up X-ray?",
            "Is the {finding} better than before, worse or the same?",
            "Report the change of the {finding} from the first to the second image.",
            "Tell me about the course of the {finding}.",
            "Did the {finding} change since the earlier X-ray?",
        ),
        open_further=(
            "Describe the interval change of the {finding}.",
            "How does the {finding} compare with the prior X-ray?",
            "State how the {finding} has developed since the first image.",
            "What does the follow-up show with regard to the {finding}?",
            "Assess the {finding} at follow-up against the baseline.",
            "Compare the {finding} in the two X-rays.",
            "Summarize what happened to the {finding} between the examinations.",
            "Write one sentence on the course of the {finding}.",
            "Explain how the {finding} differs between the earlier and the later X-ray.",
            "How has the patient's {finding} evolved?",
            "Judge the progress of the {finding} from these radiographs.",
            "Give the trend of the {finding} across both images.",
            "In the report of the second X-ray, what would you say about the {finding}?",
            "With the first X-ray as reference, comment on the {finding}.",
            "Please evaluate the change in the {finding} over time.",
        ),
        open_answers=(
            "The {finding} is {gold}.",
            "Compared with the first X-ray, the {finding} is {gold}.",
            "In the second X-ray the {finding} is {gold}.",
        ),
        meanings=CHANGE_MEANINGS,
        open_details=(
            ("{meaning}",),
            (
                "The first image is the earlier examination of this patient and serves as the reference, and the second is the"
                " follow-up, so the course of the {finding} from one to the other is rated as {gold}.",
                "The two images were taken of the same patient at different times, and the earlier one, which is shown first, is"
                " what the later one is measured against when the {finding} is called {gold}.",
                "As the images are in order of time, the {finding} in the later X-ray was set against the {finding} in the"
                " earlier one, and the interval change between both examinations is summed up as {gold}.",
            ),
            (
                "",
                "This rating is about the {finding} alone and says nothing about other findings in the two chest X-rays.",
                "Other findings in these chest X-rays are not part of this comparison, which concerns the {finding} only.",
                "Whatever else the two chest X-rays may show, this statement refers to the patient's {finding} only.",
            ),
        ),
        contexts=CONTEXTS,
    )
    for finding in FINDINGS
}
SEVERITY_TEMPLATES = {
    finding: Template(
        task=f"pretrain_ms_cxr_t_{finding}",
        ability="single",
        wordings=("How severe is the {finding}?", "What is the degree of the {finding}?", "Grade the {finding} in this X-ray."),
    )
    for finding in FINDINGS
}
FINDING_TEMPLATE = Template(
    task="pretrain_ms_cxr_t_finding",
    ability="single",
    max_options=5,
    wordings=("Which finding does this X-ray show?", "What is seen in this chest X-ray?", "Name the finding in this X-ray."),
    styles=({f: f.replace("_", " ") for f in FINDINGS},),
)


def _read_severity(image: Image, finding: str) -> str:
    truth = image.unique_finding(f"truth:severity:{finding}")
    return truth.value if truth and truth.value in SEVERITIES else ""


def build_facts(patients: list[Patient]) -> Iterator[Fact]:
    """Every labelled pair: the previous image, then the current one, and what the source says of one finding."""
    for patient in patients:
        images = {i.image_id: i for i in patient.iter_images()}
        for image in patient.iter_images():
            for finding, template in PAIR_TEMPLATES.items():
                name = finding.replace("_", " ")
                # The adapter states all three of each pair, in order.
                findings = (image.findings.get(f"{what}:{finding}", []) for what in ("progression", "previous", "label_quality"))
                for label, previous_id, quality in zip(*findings, strict=True):
                    if label.value in CHANGES and previous_id.value in images:
                        pair = (images[previous_id.value], image)
                        grades = [_read_severity(i, finding) for i in pair]
                        yield Fact(
                            template,
                            pair,
                            label.value,
                            CHANGES,
                            (label.id, previous_id.id),
                            {"finding": name},
                            states=tuple(f"{g} {name}" for g in grades) if all(grades) else (),
                            is_disputed=quality.value == "disagreement",
                        )


def build_single_facts(patients: list[Patient]) -> Iterator[Fact]:
    """What the pairs compare, image by image, where a phantom's truth states it: which finding, and how severe."""
    for image in (i for p in patients for i in p.iter_images()):
        present_findings = [f for f in FINDINGS if _read_severity(image, f)]
        for finding in present_findings:
            fields = {"finding": finding.replace("_", " ")}
            yield Fact(SEVERITY_TEMPLATES[finding], (image,), _read_severity(image, finding), SEVERITIES, text_fields=fields)
        if len(present_findings) == 1:
            yield Fact(FINDING_TEMPLATE, (image,), present_findings[0], FINDINGS)
