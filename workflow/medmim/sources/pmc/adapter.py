"""The PMC-15M subset of LLaVA-Med's instruction data: figures of papers, each with a conversation about it.

Pictures: the figure of every record: images/<image>, as LLaVA-Med's own download lays them out, where there is that folder,
else a member of its paper's tar in tars/. The paper is the patient: no split parts its figures. Findings of each image:
domain (chest_xray, mri, histology, gross, ct_scan; one for each that is true) and the turns of its conversation,
qa:<n>:question and qa:<n>:answer, n counted from 0.
"""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from medmim.sources.base import Picture, Plan, Rejection
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import one, records

RECORDS = "llava_med_instruct_60k.json"
URLS = "llava_med_image_urls.jsonl"
IMAGES = "images"
MODALITY = {
    "chest_xray": "radiography",
    "mri": "MRI",
    "histology": "microscopy",
    "gross": "photography",
    "ct_scan": "CT",
}


def _turns(conversation: Any) -> list[tuple[str, str]]:
    """(question, answer) pairs of a conversation, the image's placeholder left out. Raises ValueError."""
    if not isinstance(conversation, list) or not conversation or len(conversation) % 2:
        raise ValueError("conversations is no list of pairs of turns")
    texts = []
    for number, (turn, speaker) in enumerate(zip(conversation, ("human", "gpt") * (len(conversation) // 2), strict=True), 1):
        if not isinstance(turn, dict) or turn.get("from") != speaker or not isinstance(turn.get("value"), str):
            raise ValueError(f"turn {number} is not a text from {speaker}")
        texts.append(turn["value"].replace("<image>", "").strip())
        if not texts[-1]:
            raise ValueError(f"turn {number} is empty")
    return list(zip(texts[::2], texts[1::2], strict=True))


def places(root: Path) -> dict[str, dict[str, Any]]:
    """Where each figure is at its owner's, by pair_id: pmc_tar_url and image_file_path. Raises UserError."""
    return {str(r["pair_id"]): r for r in records(one(root, URLS), ("pair_id", "pmc_tar_url", "image_file_path"))}


def plan(root: Path) -> Plan:
    """Pictures and facts of a PMC folder: the two JSON files and images/ or tars/. Raises UserError."""
    path = one(root, RECORDS, "llava_med_instruct_*.json")
    single = (root / IMAGES).is_dir()
    at = places(root)
    made = Plan()
    pictures: dict[str, Picture] = {}
    turns: Counter[str] = Counter()
    for number, record in enumerate(records(path, ("id", "image", "domain", "conversations")), 1):
        item = f"{path.name} record {number}"
        place = at.get(str(record["id"]))
        if place is None:
            made.rejected.append(Rejection(item, f"id {record['id']!r} is no pair_id in {URLS}"))
            continue
        member = str(place["image_file_path"])
        paper = PurePosixPath(member).parts[0] if member else ""
        try:
            conversation = _turns(record["conversations"])
            if not isinstance(record["domain"], dict):
                raise ValueError("domain is no object of true and false")
            domains = [d for d, true in record["domain"].items() if true]
            if unknown := [d for d in domains if d not in MODALITY]:
                raise ValueError(f"domain {', '.join(unknown)} is none of {', '.join(MODALITY)}")
        except ValueError as error:
            made.rejected.append(Rejection(item, str(error), patient=paper))
            continue
        tar = f"tars/{PurePosixPath(str(place['pmc_tar_url'])).name}"
        file = f"{IMAGES}/{record['image']}" if single else f"{tar}!{member}"
        picture = pictures.setdefault(
            file,
            Picture(
                file=file,
                read=raster.read,
                patient=paper,
                study=str(record["id"]),
                modality=MODALITY[domains[0]] if len(domains) == 1 else "",
                item=item,
            ),
        )
        for domain in domains:
            made.state(picture, path.name, number, {"domain": domain})
        for question, answer in conversation:
            turn = f"qa:{turns[file]}"
            made.state(picture, path.name, number, {f"{turn}:question": question, f"{turn}:answer": answer})
            turns[file] += 1
    made.pictures = list(pictures.values())
    return made
