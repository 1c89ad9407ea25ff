"""Where the release's question files are: in a clone, in one of its folders, in an archive of them, or one file alone.

A clone has Benchmark_Dataset and Instruction_Dataset; GitHub's zip has them in a folder more. Where they are, nothing else
counts; elsewhere every JSON file does.
"""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from medmim.common import archives
from medmim.common.errors import UserError
from medmim.common.outside_files import translate_read_errors

JSON_SUFFIX = ".json"
QUESTION_FOLDERS = ("Benchmark_Dataset", "Instruction_Dataset")
MAX_BYTES = 2**30
"""Of the question files of an archive together; the whole release is about a tenth."""
EXPECTED = f"expected the clone of the release, one of its folders {' and '.join(QUESTION_FOLDERS)}, a zip of it, or one file"


def _is_hidden(path: PurePosixPath) -> bool:
    """Whether a part of a relative path is hidden, as .git and a Mac's ._name are."""
    return any(part.startswith(".") and not part.startswith("..") for part in path.parts)


def select_question_files(names: Iterable[str]) -> list[str]:
    """Of the files of a folder or archive, given by relative paths, those with questions, sorted."""
    paths = [path for path in map(PurePosixPath, names) if path.suffix == JSON_SUFFIX and not _is_hidden(path)]
    inside = [path for path in paths if not set(QUESTION_FOLDERS).isdisjoint(path.parts[:-1])]
    return sorted(path.as_posix() for path in inside or paths)


def _list_names(folder: Path, subfolder: str = "") -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a subfolder, as paths below the folder."""
    with translate_read_errors(folder / subfolder), os.scandir(folder / subfolder) as entries:
        names = [(f"{subfolder}{entry.name}", entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    return [name for name, is_folder in names if is_folder], [name for name, is_folder in names if not is_folder]


def find_question_files(path: Path) -> list[Path]:
    """Files to read of a release that the user has: a folder's question files; of an archive or a JSON file itself.

    Of a folder are looked through it, the folders in it, and in these the release's own, so that a folder with images beside the
    questions takes no longer. Raises UserError.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; {EXPECTED}")
    folders, names = _list_names(path)
    for folder in folders:
        inner_folders, inner_names = _list_names(path, f"{folder}/")
        names += inner_names
        for inner in inner_folders:
            if PurePosixPath(inner).name in QUESTION_FOLDERS:
                names += _list_names(path, f"{inner}/")[1]
    question_files = [path / name for name in select_question_files(names)]
    if not question_files:
        raise UserError(f"{path}: no {JSON_SUFFIX} file; {EXPECTED}")
    return question_files


def extract_question_files(archive: Path, folder: Path) -> list[Path]:
    """Write the question files of a zip or tar archive (tar.gz, .bz2, .xz too) below a folder, at their paths in it.

    Raises UserError for another format, a damaged archive, one without JSON files, a JSON member that is a link or device,
    repeats a path or would leave the folder, and for more than MAX_BYTES; what was written by then is left to the caller.
    """
    written: list[Path] = []
    bytes_left = MAX_BYTES
    try:
        selected_names = set(select_question_files(name for name, _ in archives.iter_members(archive)))
        for name, content in archives.select_members(
            archives.iter_members(archive), lambda name: name if PurePosixPath(name).as_posix() in selected_names else None
        ):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                for chunk in archives.iter_chunks(content):
                    bytes_left -= len(chunk)
                    if bytes_left < 0:
                        raise UserError(f"its {JSON_SUFFIX} files are larger than {MAX_BYTES} bytes together")
                    out.write(chunk)
            written.append(target)
    except archives.DamagedArchiveError as error:
        raise UserError(f"the archive {error}") from None
    if not written:
        raise UserError(f"it holds no {JSON_SUFFIX} file")
    return written


def copy_question_files(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Copy question files into a folder, those of archives at their paths in them. Raises UserError naming the file."""
    written: list[Path] = []
    for path in paths:
        if path.suffix != JSON_SUFFIX:
            try:
                written += extract_question_files(path, folder)
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
            continue
        target = folder / path.name
        if target.exists():
            raise UserError(f"{path}: another question file has this name: keep one of the two")
        with translate_read_errors(path):
            target.write_bytes(path.read_bytes())
        written.append(target)
    return written
