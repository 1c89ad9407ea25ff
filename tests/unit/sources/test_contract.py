"""A source's modules offer what the stages call; what one lacks is named, and adding a source computes nothing anew."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from medmim.common.errors import UserError
from medmim.config.source_plugins import SOURCES, list_parts
from medmim.download.source_folder import SourceDownload
from medmim.provenance.code_digest import LOCK_FILE, WORKFLOW, Checkout
from medmim.questions.generate import PretrainModule, QuestionModule
from medmim.sources.base import Adapter
from medmim.sources.contract import Phantom, check_contract, load_part

CONTRACTS = {"adapter": Adapter, "questions": QuestionModule, "phantom": Phantom, "download": SourceDownload}


@pytest.mark.parametrize(("source", "part"), [(s, part) for s in SOURCES for part in list_parts(s)])
def test_every_module_of_every_source_is_complete(source: str, part: str) -> None:
    contract = CONTRACTS[part]
    if part == "questions" and "single" in SOURCES[source].sets.pretrain:
        contract = PretrainModule
    load_part(source, part, contract)


def test_what_a_module_lacks_is_named() -> None:
    assert check_contract(SimpleNamespace(), SourceDownload) == [
        "there is no function estimate_size(settings, limit)",
        "there is no function fetch_source(folder, settings, limit)",
        "there is no function locate_credentials(settings)",
    ]

    def write_cohort(folder: Path, patients: int) -> None: ...

    assert check_contract(SimpleNamespace(write_cohort=write_cohort), Phantom) == [
        "write_cohort(folder, patients, seed) can't be called so: got an unexpected keyword argument 'seed'"
    ]
    assert check_contract(SimpleNamespace(build_facts=3), PretrainModule) == [
        "there is no function build_facts(patients)",
        "there is no function build_single_facts(patients)",
    ]
    with pytest.raises(UserError, match=r"medmim\.sources\.odir\.adapter is not complete: there is no function write_cohort"):
        load_part("odir", "adapter", Phantom)


def test_a_module_that_is_not_there_is_named_and_a_missing_package_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medmim.sources

    monkeypatch.setattr(medmim.sources, "__path__", [*medmim.sources.__path__, str(tmp_path)])
    for source, part in (("odr", "adapter"), ("odir", "adaptr")):
        with pytest.raises(UserError, match=rf"source {source} has no module medmim\.sources\.{source}\.{part}"):
            load_part(source, part, Adapter)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/adapter.py").write_text("import no_such_package\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_part("toy", "adapter", Adapter)


def test_neither_a_further_source_nor_a_fact_of_one_changes_the_code_of_others(tmp_path: Path) -> None:
    shutil.copytree(WORKFLOW, tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    programs = {
        "build_images.py": ("medmim.sources.odir.adapter",), "generate_qa.py": ("medmim.sources.odir.questions",),
        "make_phantoms.py": ("medmim.sources.odir.phantom",), "fetch_source.py": ("medmim.sources.odir.download",),
        "index_source.py": ("medmim.sources.odir.adapter",),
        "merge_qa.py": (), "leaderboard.py": (), "print_leaderboard.py": (), "model_card.py": (),
    }  # fmt: skip

    def digest() -> dict[str, str]:
        checkout = Checkout(tmp_path / "workflow", LOCK_FILE)
        return {program: str(checkout.code_digest(program, *modules)["sha256"]) for program, modules in programs.items()}

    before, sources = digest(), tmp_path / "workflow/medmim/sources"
    shutil.copytree(sources / "odir", sources / "toy")
    with (sources / "odir/source.yaml").open("a") as file:
        file.write("# another fact\n")
    assert digest() == before
    (sources / "odir/adapter.py").write_text("SIZE = 3\n")
    assert {program for program, sha256 in digest().items() if sha256 != before[program]} == {
        "build_images.py",
        "fetch_source.py",
        "index_source.py",
    }


@pytest.mark.parametrize("source", SOURCES)
def test_an_adapter_looks_at_no_file_unnoticed(source: str) -> None:
    """Else a change there would make nothing anew."""
    text = (WORKFLOW / f"medmim/sources/{source}/adapter.py").read_text()
    names = "glob|rglob|walk|scandir|listdir|iterdir|is_file|is_dir|exists|stat|open|read_bytes|read_text"
    assert re.findall(rf"(?<!outside_files)\.(?:{names})\(|\bopen\(", text) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_imports_no_other_source(source: str) -> None:
    for path in (WORKFLOW / "medmim/sources" / source).glob("*.py"):
        named = set(re.findall(r"medmim\.sources\.(\w+)|medmim\.sources import (\w+)", path.read_text()))
        assert not {name for names in named for name in names} & SOURCES.keys() - {source}, path
