"""ODIR-5K from Kaggle: its table and photographs, out of the data set's archive.

API: https://github.com/Kaggle/kaggle-api (datasets/download), with the user's token. The storage behind it states the archive's
md5 (X-Goog-Hash).
"""

from pathlib import PurePosixPath

from medmim.config.download import Download
from medmim.download import credentials
from medmim.download.estimate import Estimate
from medmim.download.http import Http
from medmim.download.source_folder import Folder
from medmim.sources.odir import adapter
from medmim.sources.terms import OWNERS

DATASET = "andrewmvd/ocular-disease-recognition-odir5k"
TABLE = "full_df.csv"


def _server(settings: Download, parallel: int = 1) -> Http:
    return Http(settings.kaggle, credentials.kaggle(settings.kaggle), OWNERS["odir"].apply, parallel)


def _wanted(name: str) -> str | None:
    path = PurePosixPath(name)
    return name if name == TABLE or (path.parent.name == adapter.IMAGES and path.suffix == ".jpg") else None


def fetch(folder: Folder, settings: Download, limit: int | None) -> None:
    """Fill the folder. There is one archive for all persons, so that `limit` spares nothing here."""
    server = _server(settings, folder.parallel)
    folder.archive(server.file("odir5k.zip", f"{server.base}/datasets/download/{DATASET}"), _wanted)
    for path in folder.lacking(p.file for p in adapter.plan(folder.root).pictures):
        folder.miss(path, f"{TABLE} names it, but it is not in the archive")


def login(settings: Download) -> str:
    """Where the user's token is; empty where there is none."""
    found = credentials.kaggle(settings.kaggle)
    return found.where if found else ""


def estimate(settings: Download, limit: int | None) -> Estimate:
    """The archive's size, of which this fetches one byte to see that the token works. Raises Refused, Passing."""
    server = _server(settings)
    size = server.size(f"{server.base}/datasets/download/{DATASET}")
    return Estimate(size, 2 * size if size else None, "as its server states" if size else "not stated")
