"""Files with a program's part of the config. A file's name has the hash of its content, so it never changes its meaning."""

import argparse
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from medmim.common import files

CONFIG_FOLDER = ".config"
"""Folder of these files in a run's folder."""


def _dump_config(cfg: Any) -> str:
    return json.dumps(cfg, indent=1, sort_keys=True) + "\n"


def config_digest(cfg: Any) -> str:
    """Short hash of a part of the config."""
    return hashlib.sha256(_dump_config(cfg).encode()).hexdigest()[:16]


def config_path(run_folder: Path, program: str, digest: str) -> Path:
    """Place of a program's part of the config; `digest` is as from `config_digest`."""
    return run_folder / CONFIG_FOLDER / f"{program.removesuffix('.py')}.{digest}.json"


def write_config(path: Path, cfg: Any) -> None:
    """Write a part of the config, unless the file is there as it should be."""
    content = _dump_config(cfg).encode()
    with suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return
    with files.write_atomically(path) as temporary:
        temporary.write_bytes(content)


def read_config(path: str) -> dict[str, Any]:
    """Read a part of the config, as a type of argparse's.

    Raises ArgumentTypeError, which names the file and what is wrong with it.
    """
    try:
        cfg = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{path}: is not JSON: {error}") from None
    if not isinstance(cfg, dict):
        raise argparse.ArgumentTypeError(f"{path}: must hold a JSON object, and holds {type(cfg).__name__}")
    return cfg
