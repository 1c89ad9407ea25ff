"""VQA-RAD: radiology images with clinicians' questions and answers.

Pictures: every image that a question names; each is its own patient, since the owner names none. Findings of each
image: organ (HEAD, CHEST, ABD) and, per question, qa:<qid>:question, :answer, :answer_type (CLOSED, OPEN) and
:question_type.
"""

from pathlib import Path, PurePosixPath

from medmim.sources.base import Picture, Plan, Rejection
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import one, records

RECORDS = "VQA_RAD Dataset Public.json"
FOLDER = "VQA_RAD Image Folder"
MODALITY = {"HEAD": "CT or MRI", "CHEST": "radiography", "ABD": "CT"}
STATED = ("question", "answer", "answer_type", "question_type")
ANSWERS = ("CLOSED", "OPEN")


def plan(root: Path) -> Plan:
    """Pictures and facts of a VQA-RAD folder: its JSON and its image folder. Raises UserError."""
    path = one(root, RECORDS)
    made = Plan()
    pictures: dict[str, Picture] = {}
    organs: dict[str, str] = {}
    asked: dict[str, int] = {}
    for number, record in enumerate(records(path, ("qid", "image_name", "image_organ", *STATED)), 1):
        item = f"{path.name} record {number}"
        qid, image, organ = (str(record[k]).strip() for k in ("qid", "image_name", "image_organ"))
        stated = {k: str(record[k]).strip() for k in STATED}
        odd = [f"{k} is empty" for k, v in {**stated, "qid": qid, "image_name": image}.items() if not v]
        if stated["answer_type"] not in ANSWERS:
            odd.append(f"answer_type is {stated['answer_type']!r}, neither CLOSED nor OPEN")
        if organ not in MODALITY:
            odd.append(f"image_organ is {organ!r}, none of {', '.join(MODALITY)}")
        elif organs.setdefault(image, organ) != organ:
            odd.append(f"image_organ is {organ}, but {organs[image]} in an earlier record of {image}")
        if qid in asked:
            odd.append(f"qid {qid} is that of record {asked[qid]}")
        if odd:
            made.rejected.append(Rejection(item, "; ".join(odd), patient=PurePosixPath(image).stem))
            continue
        asked[qid] = number
        file = f"{FOLDER}/{image}"
        name = PurePosixPath(image).stem
        if file not in pictures:
            pictures[file] = Picture(
                file=file, read=raster.read, patient=name, study=name, modality=MODALITY[organ], release_path=image, item=item
            )
            made.state(pictures[file], path.name, number, {"organ": organ})
        made.state(pictures[file], path.name, number, {f"qa:{qid}:{k}": v for k, v in stated.items()})
    made.pictures = list(pictures.values())
    return made
