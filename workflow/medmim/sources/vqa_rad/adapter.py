"""VQA-RAD: radiology images with clinicians' questions and answers.

Pictures: every image that a question names; each is its own patient, since the owner names none. Findings of each
image: organ (HEAD, CHEST, ABD) and, per question, qa:<qid>:question, :answer, :answer_type (CLOSED, OPEN) and
:question_type.
"""

from pathlib import Path, PurePosixPath

from medmim.sources.base import Picture, Rejection, SourceContents
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import find_one
from medmim.tables.outside_tables import get_text, read_records

RECORDS_FILE = "VQA_RAD Dataset Public.json"
IMAGE_FOLDER = "VQA_RAD Image Folder"
ORGAN_MODALITIES = {"HEAD": "CT or MRI", "CHEST": "radiography", "ABD": "CT"}
TEXT_KEYS = ("question", "answer", "answer_type", "question_type")
ANSWER_TYPES = ("CLOSED", "OPEN")


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of a VQA-RAD folder: its JSON and its image folder. Raises UserError."""
    path = find_one(root, RECORDS_FILE)
    contents = SourceContents()
    pictures: dict[str, Picture] = {}
    organs_by_image: dict[str, str] = {}
    records_by_qid: dict[str, int] = {}
    for number, record in enumerate(read_records(path, ("qid", "image_name", "image_organ", *TEXT_KEYS)), 1):
        item = f"{path.name} record {number}"
        try:
            qid, image, organ = (get_text(record, k) for k in ("qid", "image_name", "image_organ"))
            texts = {k: get_text(record, k) for k in TEXT_KEYS}
        except ValueError as error:
            contents.rejected.append(Rejection(item, str(error), patient=PurePosixPath(str(record["image_name"])).stem))
            continue
        problems = [f"{k} is empty" for k, v in {**texts, "qid": qid, "image_name": image}.items() if not v]
        if texts["answer_type"] not in ANSWER_TYPES:
            problems.append(f"answer_type is {texts['answer_type']!r}, neither CLOSED nor OPEN")
        if organ not in ORGAN_MODALITIES:
            problems.append(f"image_organ is {organ!r}, none of {', '.join(ORGAN_MODALITIES)}")
        elif organs_by_image.setdefault(image, organ) != organ:
            problems.append(f"image_organ is {organ}, but {organs_by_image[image]} in an earlier record of {image}")
        if qid in records_by_qid:
            problems.append(f"qid {qid} is that of record {records_by_qid[qid]}")
        if problems:
            contents.rejected.append(Rejection(item, "; ".join(problems), patient=PurePosixPath(image).stem))
            continue
        records_by_qid[qid] = number
        file = f"{IMAGE_FOLDER}/{image}"
        stem = PurePosixPath(image).stem
        if file not in pictures:
            pictures[file] = Picture(
                file=file,
                read_pixels=raster.read_pixels,
                patient=stem,
                study=stem,
                modality=ORGAN_MODALITIES[organ],
                release_path=image,
                item=item,
            )
            contents.add_facts(pictures[file], path.name, number, {"organ": organ})
        contents.add_facts(pictures[file], path.name, number, {f"qa:{qid}:{k}": v for k, v in texts.items()})
    contents.pictures = list(pictures.values())
    return contents
