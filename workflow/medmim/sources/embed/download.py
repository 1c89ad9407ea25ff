"""EMBED from its S3 bucket: the two tables, then the mammograms that the adapter reads of the patients wanted.

Bucket and layout: https://registry.opendata.aws/emory-breast-imaging-dataset-embed, https://github.com/Emory-HITI/EMBED_Open_Data.
The owner publishes no checksums: sizes are those of the bucket's listing, and S3's own checksums are checked where it has them.
"""

from fnmatch import fnmatch
from pathlib import PurePosixPath

from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download.estimate import Estimate
from medmim.download.s3 import S3
from medmim.download.source_folder import Folder
from medmim.download.transfer import Remote
from medmim.sources.embed import adapter
from medmim.sources.terms import OWNERS

TABLES = adapter.METADATA_TABLE, adapter.CLINICAL_TABLE
IMAGES, PATIENTS = 480_323, 22_382
"""Of the whole release, by the owner's README."""


def _bucket(settings: Download, parallel: int = 1) -> S3:
    at = settings.embed
    apply = OWNERS["embed"].apply
    return S3(at.name, at.prefix, at.region, at.endpoint, signed=True, apply=apply, connections=parallel)


def _tables(folder: Folder, bucket: S3) -> None:
    """Fetch the tables, of each kind the one that the adapter would choose."""
    there: list[Remote] | None = None
    for patterns in TABLES:
        if any(folder.has(p.relative_to(folder.root).as_posix()) for pattern in patterns for p in folder.root.glob(pattern)):
            continue
        there = folder.ask(lambda: bucket.listing("tables/")) if there is None else there
        found = [remote for pattern in patterns for remote in there if fnmatch(remote.path, pattern)]
        if not found:
            raise UserError(f"s3://{bucket.name}/{bucket.prefix}: has no {' or '.join(patterns)}")
        folder.required(found[0])


def fetch(folder: Folder, settings: Download, limit: int | None) -> None:
    """Fill the folder."""
    bucket = _bucket(settings, folder.parallel)
    _tables(folder, bucket)
    (folder.root / "images/cohort_1").mkdir(parents=True, exist_ok=True)  # the adapter looks there
    new = folder.lacking(p.file for p in adapter.plan(folder.root).limited(limit).pictures)
    listed: dict[str, Remote] = {}

    def look(patient: str) -> None:
        listed.update({remote.path: remote for remote in folder.ask(lambda: bucket.listing(patient))})

    folder.each(sorted({"/".join(PurePosixPath(path).parts[:3]) + "/" for path in new}), look)
    for path in new:
        if path not in listed:
            folder.miss(path, f"s3://{bucket.name}/{bucket.prefix}{path}: not in the bucket")
    folder.files(listed[path] for path in new if path in listed)


def login(settings: Download) -> str:
    """Where the user's credentials are; empty where there are none."""
    return _bucket(settings).where


def estimate(settings: Download, limit: int | None) -> Estimate:
    """From the sizes of the bucket's first thousand images. Raises Refused, Passing."""
    bucket = _bucket(settings)
    sizes = bucket.sample("images/")
    mean = sum(sizes) / max(len(sizes), 1)
    count = IMAGES if limit is None else IMAGES * min(limit, PATIENTS) // PATIENTS
    return Estimate(int(mean * count), int(mean * count), f"estimated: {count} images like the first {len(sizes)}")
