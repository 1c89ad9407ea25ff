"""ODIR-5K from Kaggle: its tables and photographs, out of the data set's archive.

API: https://github.com/Kaggle/kaggle-api (datasets/download), with the user's token. The storage behind it states the archive's
md5 (X-Goog-Hash).
"""

from pathlib import PurePosixPath

from medmim.config.download import Download
from medmim.config.source_plugins import SOURCES
from medmim.download import credentials
from medmim.download.estimate import Estimate
from medmim.download.http import HttpClient
from medmim.download.source_folder import DownloadFolder
from medmim.sources.odir import adapter

DATASET_NAME = "andrewmvd/ocular-disease-recognition-odir5k"
TABLE_FILE = "full_df.csv"
WORKBOOK_PARTS = ("ODIR-5K", "data.xlsx")
"""Folder and name of the table of all persons, some of which the first table lacks."""


def _make_client(settings: Download, parallel: int = 1) -> HttpClient:
    return HttpClient(settings.kaggle, credentials.find_kaggle_login(settings.kaggle), SOURCES["odir"].how_to_apply, parallel)


def _select_member(name: str) -> str | None:
    path = PurePosixPath(name)
    is_table = name == TABLE_FILE or path.parts[-2:] == WORKBOOK_PARTS
    return name if is_table or (path.parent.name == adapter.IMAGE_FOLDER and path.suffix == ".jpg") else None


def fetch_source(folder: DownloadFolder, settings: Download, limit: int | None) -> None:
    """Fill the folder. There is one archive for all persons, so that `limit` spares nothing here."""
    server = _make_client(settings, folder.parallel)
    folder.fetch_archive(server.make_remote("odir5k.zip", f"{server.base}/datasets/download/{DATASET_NAME}"), _select_member)
    for path in folder.find_absent_files(p.file for p in adapter.read_contents(folder.root).pictures):
        folder.mark_missing(path, "a table names it, but it is not in the archive")


def locate_credentials(settings: Download) -> str:
    """Where the user's token is; empty where there is none."""
    user_login = credentials.find_kaggle_login(settings.kaggle)
    return user_login.where if user_login else ""


def estimate_size(settings: Download, limit: int | None) -> Estimate:
    """Ask for the archive's size and one byte of it, to try the token. Raises AccessDeniedError, TransientError."""
    server = _make_client(settings)
    size = server.get_size(f"{server.base}/datasets/download/{DATASET_NAME}")
    return Estimate(size, 2 * size if size else None, "as its server states" if size else "not stated")
