"""EMBED from its S3 bucket: the two tables, then the mammograms that the adapter reads of the patients wanted.

Bucket and layout: https://registry.opendata.aws/emory-breast-imaging-dataset-embed, https://github.com/Emory-HITI/EMBED_Open_Data.
The owner publishes no checksums: sizes are those of the bucket's listing, and S3's own checksums are checked where it has them.
"""

from fnmatch import fnmatch
from pathlib import PurePosixPath

from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.config.source_plugins import SOURCES
from medmim.download.estimate import Estimate
from medmim.download.s3 import S3Bucket
from medmim.download.source_folder import DownloadFolder
from medmim.download.transfer import RemoteFile
from medmim.sources.embed import adapter

TABLE_PATTERNS = adapter.METADATA_PATTERNS, adapter.CLINICAL_PATTERNS
IMAGE_COUNT, PATIENT_COUNT = 480_323, 22_382
"""Of the whole release, by the owner's README."""


def _open_bucket(settings: Download, parallel: int = 1) -> S3Bucket:
    bucket_settings = settings.embed
    apply = SOURCES["embed"].how_to_apply
    return S3Bucket(
        bucket_settings.name,
        bucket_settings.prefix,
        bucket_settings.region,
        bucket_settings.endpoint,
        signed=True,
        apply=apply,
        connections=parallel,
    )


def _fetch_tables(folder: DownloadFolder, bucket: S3Bucket) -> None:
    """Fetch the tables, of each kind the one that the adapter would choose."""
    listed_tables: list[RemoteFile] | None = None
    for patterns in TABLE_PATTERNS:
        if any(folder.has_file(p.relative_to(folder.root).as_posix()) for pattern in patterns for p in folder.root.glob(pattern)):
            continue
        listed_tables = (
            folder.call_with_retries(lambda: bucket.list_objects("tables/")) if listed_tables is None else listed_tables
        )
        matching_tables = [remote for pattern in patterns for remote in listed_tables if fnmatch(remote.path, pattern)]
        if not matching_tables:
            raise UserError(f"s3://{bucket.name}/{bucket.prefix}: has no {' or '.join(patterns)}")
        folder.fetch_required(matching_tables[0])


def fetch_source(folder: DownloadFolder, settings: Download, limit: int | None) -> None:
    """Fill the folder."""
    bucket = _open_bucket(settings, folder.parallel)
    _fetch_tables(folder, bucket)
    (folder.root / "images/cohort_1").mkdir(parents=True, exist_ok=True)  # the adapter looks there
    absent_paths = folder.find_absent_files(p.file for p in adapter.read_contents(folder.root).limit_patients(limit).pictures)
    remotes_by_path: dict[str, RemoteFile] = {}

    def list_study(patient: str) -> None:
        remotes_by_path.update({remote.path: remote for remote in folder.call_with_retries(lambda: bucket.list_objects(patient))})

    folder.run_parallel(sorted({"/".join(PurePosixPath(path).parts[:3]) + "/" for path in absent_paths}), list_study)
    for path in absent_paths:
        if path not in remotes_by_path:
            folder.mark_missing(path, f"s3://{bucket.name}/{bucket.prefix}{path}: not in the bucket")
    folder.fetch_files(remotes_by_path[path] for path in absent_paths if path in remotes_by_path)


def locate_credentials(settings: Download) -> str:
    """Where the user's credentials are; empty where there are none."""
    return _open_bucket(settings).credentials_source


def estimate_size(settings: Download, limit: int | None) -> Estimate:
    """From the sizes of the bucket's first thousand images. Raises AccessDeniedError, TransientError."""
    bucket = _open_bucket(settings)
    sizes = bucket.sample_sizes("images/")
    mean_bytes = sum(sizes) / max(len(sizes), 1)
    image_count = IMAGE_COUNT if limit is None else IMAGE_COUNT * min(limit, PATIENT_COUNT) // PATIENT_COUNT
    return Estimate(
        int(mean_bytes * image_count),
        int(mean_bytes * image_count),
        f"estimated: {image_count} images like the first {len(sizes)}",
    )
