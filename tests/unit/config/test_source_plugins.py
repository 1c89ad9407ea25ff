"""What a source states of itself is read without importing it, and is refused where it is wrong or belongs to another."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from medmim.config import source_plugins
from medmim.config.download import Download
from medmim.config.run_config import BenchmarkCounts, ConfigError, parse_config
from medmim.config.source_plugins import SOURCES, list_parts, read_sources
from medmim.questions.sets import SETS

ASKED = {"run": "x", "models": {"any": {"family": "chat", "hub": "a/b"}}, "qa": {"benchmark": {"odir": 1}}}
"""The rest of a configuration with the source odir."""
FACTS = {
    "title": "Toy", "licence": "CC0", "terms": "https://example.org", "model_terms": "None.", "access": "open",
    "published": "nothing", "sets": {"train": ["temporal"], "benchmark": ["temporal"]},
}  # fmt: skip
SERVER = {"url": "https://example.org", "meaning": "a server"}
HELD_OUT = {"label": "Toy", "meaning": "a set"}


def write_source(folder: Path, name: str, **facts: Any) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "source.yaml").write_text(yaml.safe_dump(FACTS | facts))


def test_every_source_states_its_facts_and_sets_that_exist() -> None:
    folders = {path.parent.name for path in source_plugins.SOURCES_FOLDER.glob("*/adapter.py")}
    assert folders == set(SOURCES)
    for name, source in SOURCES.items():
        assert set(list_parts(name)) >= {"adapter", "questions"}
        assert all(set(sets) <= set(SETS[split]) for split, sets in source.list_sets().items())
        assert "|" not in source.model_dump_json()  # texts stand in Markdown tables


def test_settings_of_a_download_are_those_of_its_source() -> None:
    settings = Download.model_validate({"osf": "http://localhost:1"})
    assert settings.select_settings("vqa_rad") == {"osf": "http://localhost:1", "retries": 8, "pause": 1}
    assert set(settings.select_settings("pmc")) == {"llava_med", "pmc", "pmc_cloud", "retries", "pause"}
    assert Download.model_validate({"pmc_cloud": None}).pmc_cloud is None
    with pytest.raises(ValueError, match="embed"):
        Download.model_validate({"embed": None})
    assert Download.model_fields["kaggle"].description == "Kaggle's API, for ODIR-5K."


def test_sources_stand_in_their_order_and_then_by_name(tmp_path: Path) -> None:
    for name, order in (("b", {}), ("a", {}), ("z", {"order": 1})):
        write_source(tmp_path, name, **order)
    (tmp_path / "readers").mkdir()
    assert list(read_sources(tmp_path)) == ["z", "a", "b"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"license": "x"}, "license: unknown key"),
        ({"title": None}, "title: "),
        ({"access": "perhaps"}, "access: "),
        ({"sets": {}}, "sets and held_out are both empty"),
        ({"servers": {"toy": {"meaning": "x"}}}, "set exactly one of url and bucket"),
        ({"servers": {"retries": SERVER}}, "retries can't be the name of a server"),
        ({"servers": {"a-b": SERVER}}, "a-b can't be the name of a server"),
        ({"held_out": {"further": HELD_OUT}}, "further is the name of a sum of sets"),
        ({"held_out": {"Toy Set": HELD_OUT}}, "held_out.Toy Set"),
        ({"sets": {"train": ["temporl"]}}, "sets.train: train has no set 'temporl'; did you mean 'temporal'?"),
        ({"sets": {"benchmark": ["composed"]}}, "sets.benchmark: benchmark has no set 'composed'; there are temporal, reasoning"),
        ({"sets": {"pretrain": ["temporal"]}}, "sets.pretrain: pretrain has no set 'temporal'; there are single, text"),
        ({"sets": {"train": ["temporal", "temporal"]}}, "source.yaml:6: sets.train: temporal appears twice"),
        ({"order": -1}, "order: is -1; allowed: whole number from 0 to 1,000,000"),
        ({"is_verified": "yes"}, "is_verified: is 'yes'; allowed: true or false"),
        ({"sets": {"benchmark": ["rad"]}}, "source toy: sets names rad, the held-out set of source owner"),
        ({"held_out": {"rad": HELD_OUT}}, "source toy: the held-out set rad belongs to source owner"),
        ({"patients_of": "ownr"}, "patients_of: ownr is not another source; did you mean 'owner'?"),
        ({"patients_of": "toy"}, "patients_of: toy is not another source"),
        ({"servers": {"osf": SERVER}}, "source toy: the server osf belongs to source owner"),
    ],
)
def test_wrong_facts_are_refused_with_their_place(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    write_source(tmp_path, "owner", order=1, held_out={"rad": HELD_OUT}, servers={"osf": SERVER})
    write_source(tmp_path, "toy", **facts)
    with pytest.raises(ConfigError) as error:
        read_sources(tmp_path)
    assert message in str(error.value) and "toy" in str(error.value)


def test_a_folder_that_is_no_package_and_a_file_that_is_no_yaml_are_refused(tmp_path: Path) -> None:
    write_source(tmp_path / "a", "my-source")
    with pytest.raises(ConfigError, match="name it with letters"):
        read_sources(tmp_path / "a")
    write_source(tmp_path / "b", "toy")
    (tmp_path / "b/toy/source.yaml").write_text("title: [")
    with pytest.raises(ConfigError, match=r"source\.yaml:1: not valid YAML"):
        read_sources(tmp_path / "b")
    (tmp_path / "b/toy/source.yaml").write_text(yaml.safe_dump(FACTS) + "title: Other\n")
    with pytest.raises(ConfigError, match=r"source\.yaml:12: title: appears twice"):
        read_sources(tmp_path / "b")
    write_source(tmp_path / "c", "train")
    with pytest.raises(ConfigError, match="train is the name of a table of questions"):
        read_sources(tmp_path / "c")


def test_a_source_without_what_a_run_needs_of_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = ASKED | {"sources": {"odir": {"origin": "download"}}}
    released = {"qa": {"origin": "released", "release": {"path": "x"}}}
    for parts, more, message in (
        (("adapter", "questions"), {}, "sources.odir.origin: odir can't be of origin download"),
        (("adapter", "download"), {}, "has no questions.py"),
        (("questions", "download"), {}, "has no adapter.py"),
        (("adapter", "download"), released, ""),
    ):
        monkeypatch.setattr(source_plugins, "list_parts", lambda name, parts=parts: parts)
        if message:
            with pytest.raises(ConfigError, match=message):
                parse_config(values | more)
        else:
            parse_config(values | more)
    monkeypatch.setattr(source_plugins, "list_parts", lambda name: ("adapter", "questions", "phantom"))
    with pytest.raises(ConfigError, match="set it to local or phantom, or add that module"):
        parse_config(values)


def test_an_unknown_source_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"sources\.odr: no source 'odr'; did you mean 'odir'\?"):
        parse_config(ASKED | {"sources": {"odr": {"path": "x"}}})


def test_sets_that_nobody_asks_for_are_in_no_programs_cfg() -> None:
    assert BenchmarkCounts(odir=3, temporal=1).select_wanted() == {"temporal": 1, "odir": 3}
    config = parse_config(ASKED | {"sources": {"odir": {"path": "x"}, "embed": {"path": "x"}}})
    assert config.held_out_labels == [["odir", "ODIR"]]
