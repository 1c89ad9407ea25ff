"""PMC as LLaVA-Med ships it: a conversation about several images is not asked about one of them."""

import json
from pathlib import Path

import pytest
from local_source import LocalSource, read_local_source, write_picture

SEVERAL = [
    "What has changed between the baseline and follow-up images?",
    "What do the axial and coronal CT images show?",
    "How do the frontal and lateral views differ?",
    "MRI images reveal a lesion in the left frontal lobe.",
    "Are these scans of one patient?",
    "What is the difference between the images of the patient and of the healthy control subject?",
    "The figure is a series of CT images of the chest.",
    "The mass is smaller compared to the previous CT scan.",
    "Has it grown compared with her prior study?",
    "What is seen before and after treatment?",
    "The pre- and postoperative appearance is shown.",
    "What does the image on the right show?",
    "What do the arrows mark in the left axial T2W MR image?",
    "Which stain was used in the upper row?",
    "The lesion is followed over several time points.",
    "It holds two sets of single photon emission tomography scans.",
    "What types of images are presented?",
    "Are there both chest X-rays and CT scans?",
    "The baseline scan and the follow-up scan look alike.",
    "The images were taken at 4 and at 8 weeks.",
    "How do the photomicrographs compare?",
]
SINGLE = [
    "What is the organ in the image?",
    "The image shows a mass in the left upper lobe.",
    "What type of stain is used?",
    "The two lungs are clear, and both kidneys are normal.",
    "What does the arrow point to?",
    "CT is used since it is fast, and other modalities are slower.",
    "The lesion was found at a follow-up examination after surgery.",
    "Is the heart in the middle of the picture enlarged?",
    "A sequence of T1 weighting was used for this MRI scan.",
    "The first symptoms came three weeks before the scan.",
    "There is contrast between two types of cells.",
    "How large is the mass in the previous question's patient?",
    "The right side of the image shows the liver.",
]
PART = ["What does panel B show?", "The nodule is marked in (A).", "What is the arrow in figure 2?"]


def make_conversation(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    turns = [{"from": s, "value": text} for pair in pairs for s, text in zip(("human", "gpt"), pair, strict=True)]
    turns[0]["value"] += "\n<image>"
    return turns


def read_conversations(root: Path, conversations: list[list[dict[str, str]]]) -> LocalSource:
    """A folder whose papers have a figure each, in LLaVA-Med's form; with the single-image questions."""
    records, lines = [], []
    for number, turns in enumerate(conversations):
        name = f"{number}_F1"
        domain = dict.fromkeys(("chest_xray", "mri", "histology", "gross", "ct_scan"), False) | {"mri": True}
        records.append({"id": name, "image": f"{name}.jpg", "domain": domain, "conversations": turns})
        url = f"ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/00/0a/PMC{number}.tar.gz"
        lines.append(json.dumps({"pair_id": name, "pmc_tar_url": url, "image_file_path": f"PMC{number}/f1.jpg"}))
        write_picture(root / f"images/{name}.jpg", number)
    (root / "llava_med_instruct_60k.json").write_text(json.dumps(records), "utf-8")
    (root / "llava_med_image_urls.jsonl").write_text("\n".join(lines), "utf-8")
    return read_local_source("pmc", root, pretrain=True)


def make_both_ways(text: str, number: int) -> list[list[dict[str, str]]]:
    """Conversations in which the text is asked, and in which it is answered, after a harmless turn."""
    harmless = f"Which modality is this, number {number}?", "It is an MRI."
    return [make_conversation(harmless, (text, "Yes.")), make_conversation(harmless, ("What is seen?", text))]


@pytest.mark.parametrize("kind", ["several", "single", "part"])
def test_conversations_about_several_images_are_left_out(kind: str, tmp_path: Path) -> None:
    texts = {"several": SEVERAL, "single": SINGLE, "part": PART}[kind]
    # Others to be joined with, for composed questions are about several papers.
    others = [make_conversation((f"Is number {n} normal?", "It is.")) for n in range(4)]
    conversations = [c for number, text in enumerate(texts) for c in make_both_ways(text, number)]
    source = read_conversations(tmp_path, conversations + others)
    composed = {f for row in source.questions if row["set"] == "composed" for f in source.list_files(row)}
    alone = {f for row in source.questions if row["task"] == "pretrain_pmc_turn" for f in source.list_files(row)}
    files = {f"images/{n}_F1.jpg": texts[n // 2] for n in range(len(conversations))}
    shown = {texts for file, texts in files.items() if file in composed}
    assert shown == (set() if kind == "several" else set(texts))
    assert composed == alone != set()
    asked_or_answered = " ".join(f"{row['question']} {row['answer']}" for row in source.questions)
    stated = {t for t in texts if t[1:] in asked_or_answered}  # the first letter may be small in a question
    assert stated == (set(texts) if kind == "single" else set())


def test_golds_are_the_answers_of_the_turns(tmp_path: Path) -> None:
    conversations = [
        make_conversation((f"Is number {n} normal?", f"Answer {n}."), ("How large is it?", f"{n} cm.")) for n in range(9)
    ]
    source = read_conversations(tmp_path, conversations)
    answers = {f"images/{n}_F1.jpg": {"normal": f"Answer {n}.", "large": f"{n} cm."} for n in range(9)}
    composed = [row for row in source.questions if row["set"] == "composed"]
    assert len(composed) > 9
    for row in composed:
        parts = row["answer"].split("Image ")[1:]
        assert len(parts) == len(row["image_ids"])
        for number, (file, part) in enumerate(zip(source.list_files(row), parts, strict=True), 1):
            assert part.strip() in {f"{number}: {a}" for a in answers[file].values()}
