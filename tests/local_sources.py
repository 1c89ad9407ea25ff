"""Folders in an owner's layout, read as `origin: local` reads them, by the workflow's programs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from config_files import config_file
from medmim.config.source_plugins import SOURCES
from medmim.tables import table_io

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow/scripts"
QUESTION_CFG = {"seed": 7, "benchmark_fraction": 0.5, "open_fraction": 0.0}


class LocalSource:
    """One source's folder, and the tables made of it in `out`."""

    def __init__(self, name: str, root: Path, out: Path) -> None:
        self.name, self.root, self.out = name, root, out

    def _run_program(self, program: str, cfg: dict[str, Any], **arguments: Path | str) -> str:
        options = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, str(SCRIPTS / program), *options, "--cfg", config_file(cfg)]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def index_folder(self, **cfg: Any) -> dict[str, str]:
        """Index the folder; returns the sha256 of each file that is needed."""
        places = {name: self.out / f"{name}.parquet" for name in ("index", "watched")}
        hashes = self.out / "hashes.jsonl"
        self._run_program("index_source.py", cfg, source=self.name, root=self.root, hashes=hashes, **places)
        return {str(r["path"]): str(r["sha256"]) for r in table_io.read_table(places["index"], "files").to_pylist()}

    def build_tables(self, **cfg: Any) -> str:
        """Index the folder and write its images, findings and rejections; returns the log."""
        tables = {name: self.out / f"{name}.parquet" for name in ("images", "findings", "rejected")}
        self.index_folder(**{k: v for k, v in cfg.items() if k == "limit"})
        return self._run_program(
            "build_images.py",
            {"size": 32, **cfg},
            source=self.name,
            root=self.root,
            raw=self.out / "index.parquet",
            **tables,
        )

    def generate_questions(self, **cfg: Any) -> list[dict[str, Any]]:
        """Questions of the tables."""
        options = QUESTION_CFG | {"sets": SOURCES[self.name].list_sets()} | cfg
        arguments = {name: self.out / f"{name}.parquet" for name in ("images", "findings")}
        self._run_program("generate_qa.py", options, source=self.name, qa=self.out / "qa.parquet", **arguments)
        return table_io.read_frame(self.out / "qa.parquet", "qa").to_dict("records")

    def read_table(self, name: str) -> pd.DataFrame:
        """The images, findings or rejected table."""
        return table_io.read_frame(self.out / f"{name}.parquet", name)
