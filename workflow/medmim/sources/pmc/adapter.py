"""The PMC-15M subset of LLaVA-Med's instruction data: figures of papers, each with a conversation about it.

Pictures: the figure of every record: images/<image>, as LLaVA-Med's own download lays them out, where there is that folder,
else a member of its paper's tar in tars/. The paper is the patient: no split parts its figures. Findings of each image:
domain (chest_xray, mri, histology, gross, ct_scan; one for each that is true) and the turns of its conversation,
qa:<n>:question and qa:<n>:answer, n counted from 0.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from medmim.common.outside_files import is_folder
from medmim.sources.base import Picture, Rejection, SourceContents
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import find_one
from medmim.tables.outside_tables import get_text, read_records

RECORDS_FILE = "llava_med_instruct_60k.json"
URLS_FILE = "llava_med_image_urls.jsonl"
IMAGE_FOLDER = "images"
DOMAIN_MODALITIES = {
    "chest_xray": "radiography",
    "mri": "MRI",
    "histology": "microscopy",
    "gross": "photography",
    "ct_scan": "CT",
}


def _parse_conversation(conversation: Any) -> list[tuple[str, str]]:
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


def read_figure_locations(root: Path) -> dict[str, dict[str, Any]]:
    """Where each figure is at its owner's, by pair_id: pmc_tar_url and image_file_path. Raises UserError."""
    records = read_records(find_one(root, URLS_FILE), ("pair_id", "pmc_tar_url", "image_file_path"))
    return {str(r["pair_id"]): r for r in records}


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of a PMC folder: the two JSON files and images/ or tars/. Raises UserError."""
    path = find_one(root, RECORDS_FILE, "llava_med_instruct_*.json")
    has_image_folder = is_folder(root / IMAGE_FOLDER)
    locations = read_figure_locations(root)
    contents = SourceContents()
    pictures: dict[str, Picture] = {}
    turn_counts: Counter[str] = Counter()
    for number, record in enumerate(read_records(path, ("id", "image", "domain", "conversations")), 1):
        item = f"{path.name} record {number}"
        location = locations.get(str(record["id"]))
        if location is None:
            contents.rejected.append(Rejection(item, f"id {record['id']!r} is no pair_id in {URLS_FILE}"))
            continue
        paper = ""
        try:
            study, image = get_text(record, "id"), get_text(record, "image")
            member, url = (get_text(location, key) for key in ("image_file_path", "pmc_tar_url"))
            paper = next(iter(PurePosixPath(member).parts), "")
            if not paper or not image:
                raise ValueError(f"{'image' if paper else f'image_file_path in {URLS_FILE}'} is empty")
            question_answers = _parse_conversation(record["conversations"])
            if not isinstance(record["domain"], dict) or not all(isinstance(v, bool) for v in record["domain"].values()):
                raise ValueError("domain is no object of true and false")
            domains = [d for d, true in record["domain"].items() if true]
            if unknown_domains := [d for d in domains if d not in DOMAIN_MODALITIES]:
                raise ValueError(f"domain {', '.join(unknown_domains)} is none of {', '.join(DOMAIN_MODALITIES)}")
        except ValueError as error:
            contents.rejected.append(Rejection(item, str(error), patient=paper))
            continue
        tar = f"tars/{PurePosixPath(url).name}"
        file = f"{IMAGE_FOLDER}/{image}" if has_image_folder else f"{tar}!{member}"
        picture = pictures.setdefault(
            file,
            Picture(
                file=file,
                read_pixels=raster.read_pixels,
                patient=paper,
                study=study,
                modality=DOMAIN_MODALITIES[domains[0]] if len(domains) == 1 else "",
                item=item,
            ),
        )
        for domain in domains:
            contents.add_facts(picture, path.name, number, {"domain": domain})
        for question, answer in question_answers:
            fact_prefix = f"qa:{turn_counts[file]}"
            contents.add_facts(picture, path.name, number, {f"{fact_prefix}:question": question, f"{fact_prefix}:answer": answer})
            turn_counts[file] += 1
    contents.pictures = list(pictures.values())
    return contents


def add_released_pictures(root: Path, contents: SourceContents, paths: Collection[str]) -> None:
    """Say which figure each path of the release means: by its record's id, <PubMed id>_F1, or by its path in the paper's tar."""
    locations = read_figure_locations(root)
    indexes_by_name: dict[str, int] = {}
    for index, picture in enumerate(contents.pictures):
        for name in (picture.study, str(locations[picture.study]["image_file_path"])):
            indexes_by_name.setdefault(name, index)
    for path in sorted(paths):
        for name in (PurePosixPath(path).stem, "/".join(PurePosixPath(path).parts[-2:])):
            if name in indexes_by_name:
                index = indexes_by_name[name]
                contents.pictures[index] = replace(contents.pictures[index], release_path=path)
