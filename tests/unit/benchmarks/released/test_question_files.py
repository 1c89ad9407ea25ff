"""The forms in which users have the release, read by the programs that take it."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import release_made as made

from medmim.benchmarks.released.question_files import find_question_files
from medmim.common import files
from medmim.common.errors import UserError
from medmim.tables import table_io

NAMES = [made.BENCHMARK, made.TRAIN]


def make_clone(folder: Path) -> Path:
    """A clone as git leaves it: the two folders, files beside them, and .git; pictures that a user keeps there."""
    made.write_records(folder / "Benchmark_Dataset" / made.BENCHMARK, [made.make_record(n) for n in range(4)])
    made.write_records(folder / "Instruction_Dataset" / made.TRAIN, [made.make_record(n) for n in range(3, 9)])
    (folder / "README.md").write_text("# Med-MIM")
    for other in ("package.json", ".vscode/settings.json", ".git/Med_MIM_benchmark_Held_out_RAD.json", "images/p10/notes.json"):
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_text("not a question")
    return folder


def zip_folder(folder: Path, archive: Path, top: str) -> Path:
    """A zip of a folder's files below `top`, with what macOS puts into one."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            zip_file.write(path, f"{top}{path.relative_to(folder)}")
            zip_file.writestr(f"__MACOSX/{top}{path.relative_to(folder).parent}/._{path.name}", b"\0")
    return archive


def fetch(path: Path, out: Path) -> Path:
    """Index of the release that was brought into `out`."""
    index = out / "release" / files.INDEX_NAME
    done = made.run_program("fetch_release.py", "--release", *find_question_files(path), "--index", index)
    assert done.returncode == 0, done.stderr
    return index


@pytest.mark.parametrize("form", ["clone", "parent", "github zip", "zip of the clone", "zip of the folders"])
def test_every_form_of_the_whole_release_gives_the_same_questions(tmp_path: Path, form: str) -> None:
    clone = make_clone(tmp_path / "clones" / "Med-MIM")
    if form == "zip of the folders":
        for name in ("README.md", "package.json", ".vscode", ".git", "images"):
            path = clone / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    tops = {"github zip": "Med-MIM-main/", "zip of the clone": "Downloads/Med-MIM/", "zip of the folders": ""}
    path = {"clone": clone, "parent": clone.parent}.get(form) or zip_folder(clone, tmp_path / "release.zip", tops[form])
    before = sorted(p for p in tmp_path.rglob("*"))
    index = fetch(path, tmp_path / "out")
    rows = table_io.read_table(index, "files").to_pylist()
    assert sorted(Path(row["path"]).name for row in rows) == NAMES
    written = set(tmp_path.rglob("*")) - set(before)
    assert all(p.is_relative_to(tmp_path / "out") for p in written)
    outputs = [p for name in ("train", "benchmark", "rejected") for p in (f"--{name}", tmp_path / f"out/{name}.parquet")]
    assert not made.run_program("import_release.py", "--index", index, *outputs).returncode
    assert [len(table_io.read_table(tmp_path / f"out/{split}.parquet", "qa")) for split in ("train", "benchmark")] == [6, 4]
    audit = tmp_path / "audit.json"
    ours = ("--train", tmp_path / "out/train.parquet", "--benchmark", tmp_path / "out/benchmark.parquet")
    done = made.run_program("audit_release.py", *ours, "--release", index, "--json", audit)
    assert done.returncode == 0, done.stderr
    figures = json.loads(audit.read_text())
    assert list(figures) == ["temporal", made.BENCHMARK]
    assert (figures[made.BENCHMARK]["records"], figures[made.BENCHMARK]["same_images_in_train"]) == (4, 1)


def test_one_folder_and_one_file_are_a_part_of_the_release(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "Med-MIM")
    benchmark = clone / "Benchmark_Dataset" / made.BENCHMARK
    assert find_question_files(benchmark.parent) == find_question_files(benchmark) == [benchmark]
    index, audit = fetch(benchmark, tmp_path / "out"), tmp_path / "audit.json"
    outputs = [p for name in ("train", "benchmark", "rejected") for p in (f"--{name}", tmp_path / f"out/{name}.parquet")]
    done = made.run_program("import_release.py", "--index", index, *outputs)
    assert done.returncode == 0 and "no training question: nothing can be tuned on this release" in done.stderr
    done = made.run_program("audit_release.py", "--train", benchmark.parent, "--benchmark", benchmark, "--json", audit)
    assert done.returncode == 0, done.stderr
    assert json.loads(audit.read_text())[made.BENCHMARK]["shares_patient_with_train"] == 0


def test_a_clone_is_audited_by_hand(tmp_path: Path) -> None:
    clone, audit = make_clone(tmp_path / "Med-MIM"), tmp_path / "audit.json"
    done = made.run_program("audit_release.py", "--train", clone, "--benchmark", clone, "--json", audit)
    assert done.returncode == 0, done.stderr
    assert json.loads(audit.read_text())[made.BENCHMARK]["records"] == 4
    (tmp_path / "empty").mkdir()
    done = made.run_program("audit_release.py", "--train", tmp_path / "empty", "--benchmark", clone, "--json", audit)
    assert done.returncode == 2 and "empty: no .json file; expected the clone of the release" in done.stderr


def test_what_git_itself_makes_is_read(tmp_path: Path) -> None:
    """A repository with the two folders, cloned, and archived as GitHub does."""
    origin = make_clone(tmp_path / "origin")
    shutil.rmtree(origin / ".git")
    git = ["git", "-C", str(origin), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in ("init", "add --all", "commit --message release"):
        subprocess.run([*git, *words.split()], check=True, capture_output=True)
    subprocess.run([*git, "clone", "--no-hardlinks", str(origin), str(tmp_path / "clone")], check=True, capture_output=True)
    archive = tmp_path / "Med-MIM-main.zip"
    subprocess.run([*git, "archive", "--prefix=Med-MIM-main/", f"--output={archive}", "HEAD"], check=True)
    hashes = [
        {Path(r["path"]).name: r["sha256"] for r in table_io.read_table(fetch(path, tmp_path / out), "files").to_pylist()}
        for out, path in (("one", tmp_path / "clone"), ("two", archive))
    ]
    assert hashes[0] == hashes[1] and sorted(hashes[0]) == NAMES


def test_what_is_no_release_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such file or folder; expected the clone of the release"):
        find_question_files(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no \.json file; expected the clone"):
        find_question_files(tmp_path)
    (tmp_path / "notes.txt").write_text("none")
    zip_folder(tmp_path, tmp_path / "notes.zip", "")
    index = tmp_path / "out/release" / files.INDEX_NAME
    for name, reason in (("notes.txt", "can't be extracted as zip or tar"), ("notes.zip", "it holds no .json file")):
        done = made.run_program("fetch_release.py", "--release", *find_question_files(tmp_path / name), "--index", index)
        assert done.returncode == 1 and f"{tmp_path / name}: " in done.stderr and reason in done.stderr
        assert "Traceback" not in done.stderr and not index.parent.exists()


def test_two_question_files_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [made.write_records(tmp_path / folder / made.BENCHMARK, [made.make_record()]) for folder in "ab"]
    done = made.run_program("fetch_release.py", "--release", *paths, "--index", tmp_path / "out" / files.INDEX_NAME)
    assert done.returncode == 1 and "another question file has this name: keep one of the two" in done.stderr
