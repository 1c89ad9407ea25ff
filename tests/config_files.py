"""Parts of the config as programs are given them: in a file."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from medmim.provenance.config_file import config_digest, config_path, write_config


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="configs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def config_file(cfg: Any) -> str:
    """Path of a file that holds a part of the config, for `--cfg`."""
    path = config_path(_folder(), "test.py", config_digest(cfg))
    write_config(path, cfg)
    return str(path)
