import json

import pytest
import release_made as made
from hypothesis import given, settings
from hypothesis import strategies as st

from medmim.benchmarks.released import records
from medmim.benchmarks.released.records import ReleaseError, parse_question, parse_records
from medmim.questions.prompt import prompt_text, target_text

THREE = json.dumps([made.make_record(n, text="Größer — wo?") for n in (1, 2, 3)], indent=4, ensure_ascii=False).encode()


def refused(data: bytes) -> str:
    with pytest.raises(ReleaseError) as error:
        parse_records(data, "made.json")
    return str(error.value)


def ask(**parts: object) -> records.Question:
    return parse_question(parse_records(json.dumps([made.make_record(**parts)]).encode(), "made.json")[0])  # type: ignore[arg-type]


def test_reads_every_record_with_its_line(release_files):
    path = release_files / "Med_MIM_benchmark_Held_in_Comparison.json"
    read = records.read_records(path)
    assert len(read) == 344
    lines = path.read_text().split("\n")
    for record in read[:: len(read) // 20]:
        assert lines[record.line - 1].strip() == "{"
        assert lines[record.line].strip() == f'"id": "{record.id}",'
    assert [r.number for r in read] == list(range(1, 345))


@settings(max_examples=60, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_refused_wherever_it_is_cut(at):
    data = THREE[: int(at * len(THREE))]
    message = refused(data)
    assert message.startswith("made.json:")
    line = int(message.split(":")[1])
    assert 1 <= line <= data.count(b"\n") + 1
    assert "expected" in message


@pytest.mark.parametrize("data", [THREE, json.dumps(json.loads(THREE)).encode()])  # characters as they are, and as \\uXXXX
def test_every_cut_of_a_file_is_refused_and_called_a_cut(data):
    for at in range(1, len(data)):
        message = refused(data[:at])
        assert "cut off" in message, (at, data[max(0, at - 20) : at], message)


def test_cuts_of_a_real_file_are_refused(release_files):
    data = (release_files / "Med_MIM_benchmark_Held_out_ODIR.json").read_bytes()
    for at in range(1, len(data), len(data) // 40):
        assert "cut off" in refused(data[:at])
    last = data.count(b"\n") + 1
    assert refused(data[:-1]).startswith(f"made.json:{last}:1: the file is cut off after record 600: expected ','")


@pytest.mark.parametrize(
    ("data", "where", "expected"),
    [
        (b"", "1:1", "expected '[' that opens a list of records, found the end of the file"),
        (b"\n\n  {}", "3:3", "expected '[' that opens a list of records, found '{}'"),
        (b'{"id": "1"}', "1:1", "expected '[' that opens a list of records"),
        (b"[]", "1:2", "an empty list"),
        (b"[\n{} {}]", "2", "record 1: the record lacks id, images, conversation, source"),
        (b"[\n12]", "2", "record 1: the record is a number, expected an object with id"),
        (b'[\n{"id" 1}]', "2:7", "record 1 is not JSON, which starts at line 2: expected ':' delimiter"),
        (b'["a\\q"]', "1:4", "record 1 is not JSON"),
        (THREE + b"\n]", "57:1", "expected the end of the file after the list, found ']'"),
        (THREE.replace(b"},\n    {", b"}\n    {"), "20:5", "after record 1 stands '{'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "1:1", "Git LFS pointer"),
        (b'[{"a": 1, "a": 2}]', "1:2", "record 1: key 'a' stands twice"),
    ],
)  # fmt: skip
def test_what_is_not_a_list_of_records_is_refused_with_its_place(data, where, expected):
    message = refused(data)
    assert message.startswith(f"made.json:{where}:")
    assert expected in message


def test_encoding_errors_are_named():
    assert refused('[\n  "ä'.encode("latin-1")).startswith("made.json:2:4: the file is cut off inside a character")
    assert refused('[\n  "ä"]'.encode("latin-1")).startswith("made.json:2:4: not UTF-8: found the bytes e4 22 5d")
    assert len(parse_records(b"\xef\xbb\xbf" + THREE, "made.json")) == 3  # a byte order mark does no harm
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-32-be"):
        assert parse_records(THREE.decode().encode(encoding), "made.json") == parse_records(THREE, "made.json")


def broken(change) -> str:
    found = [made.make_record(1), made.make_record(2)]
    change(found[1])
    return refused(json.dumps(found, indent=4).encode())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r.pop("source"), "the record lacks source; expected the keys id, images, conversation, source"),
        (lambda r: r.update(sources=r.pop("source")), "the record lacks source and has unknown sources"),
        (lambda r: r.update(extra=1), "the record has unknown extra"),
        (lambda r: r.update(id=None), "id is null, expected text"),
        (lambda r: r.update(id=True), "id is true or false, expected text"),
        (lambda r: r.update(images="a.png"), "images is text, expected a list of paths"),
        (lambda r: r.update(images=["a.png", 3]), "image 2 is a number, expected a path"),
        (lambda r: r.update(images=[""]), "image 1 is empty, expected a path"),
        (lambda r: r.update(source=["x"]), "source is a list, expected text"),
        (lambda r: r.update(conversation="hello"), "conversation is text, expected a list of turns"),
        (lambda r: r["conversation"].pop(), "conversation is a list of 1, expected a list of turns"),
        (lambda r: r["conversation"].reverse(), "the role of turn 1 is 'assistant', expected 'user'"),
        (lambda r: r["conversation"][0].update(role="human"), "the role of turn 1 is 'human', expected 'user'"),
        (lambda r: r["conversation"][1].update(content=None), "the content of turn 2 is null, expected text"),
        (lambda r: r["conversation"][1].pop("content"), "turn 2 lacks content; expected the keys role, content"),
        (lambda r: r["conversation"].__setitem__(1, "B"), "turn 2 is text, expected an object with role, content"),
    ],
)
def test_a_record_of_another_form_is_refused_with_number_and_line(change, expected):
    message = broken(change)
    assert message.startswith("made.json:20: record 2: ")
    assert expected in message


@pytest.mark.parametrize("count", range(2, 8))
def test_two_to_seven_options(count):
    options = [f"option {n}" for n in range(count)]
    for gold in range(count):
        found = ask(options=options, answer=f"{'ABCDEFG'[gold]}: option {gold}")
        assert found.is_closed
        assert found.text == "Which is worse?"
        assert found.options == tuple(zip("ABCDEFG", options, strict=False))
        assert (found.gold, found.letter) == (gold, "ABCDEFG"[gold])


def test_options_over_several_lines_and_with_stray_space():
    text = "Look closely.\nWhich?  "
    found = ask(text=text, options=("first  ", "second,\n  went on: here\n\n", "third"), answer="B: second,\nwent on: here")
    assert found.text == "Look closely.\nWhich?"
    assert [t for _, t in found.options] == ["first", "second,\nwent on: here", "third"]
    assert found.gold == 1


def test_an_option_that_quotes_letters_is_one_option():
    found = ask(options=("both of\nA: the left", "neither\nA: nor\nB: so"), answer="A: both of\nA: the left")
    assert [t for _, t in found.options] == ["both of\nA: the left", "neither\nA: nor\nB: so"]
    assert found.gold == 0


def test_open_questions():
    found = ask(text="What changed? A: nothing?", options=(), answer=" It grew.\n\nA lot. ")
    assert (found.is_closed, found.options, found.gold, found.letter) == (False, (), None, "")
    assert (found.text, found.answer) == ("What changed? A: nothing?", "It grew.\n\nA lot.")


@pytest.mark.parametrize(
    ("answer", "gold", "letter"),
    [
        ("A: first", 0, "A"),
        ("B", 1, "B"),
        ("B:", 1, "B"),
        ("second", 1, "B"),
        (" B:  second\n", 1, "B"),
        ("A: second", None, "A"),  # letter and text of two options
        ("C: third", None, "C"),
        ("neither", None, ""),
        ("", None, ""),
    ],
)
def test_gold(answer, gold, letter):
    found = ask(answer=answer)
    assert (found.gold, found.letter) == (gold, letter)


def test_golds_where_texts_repeat_or_letters_are_skipped():
    assert ask(options=("x", "y", "y"), answer="C: y").gold == 2
    assert ask(options=("x", "y", "y"), answer="y").gold is None
    skipped = ask(text="Which?\nA: one\nB: two\n\nD: four", options=(), answer="D: four")
    assert (skipped.options, skipped.gold, skipped.letter) == ((("A", "one"), ("B", "two"), ("D", "four")), 2, "D")
    assert ask(options=(), answer="B: lettered, but nothing is listed").is_closed


def test_the_parts_put_together_again_are_the_released_text(release_files):
    for path in sorted(release_files.glob("*.json")):
        for record in records.read_records(path):
            found = parse_question(record)
            if [letter for letter, _ in found.options] != list("ABCDEFG"[: len(found.options)]):
                continue  # one record skips a letter
            options = [text for _, text in found.options]
            content, answer = (text for _, text in record.turns)
            squeezed = "\n".join(line.rstrip() for line in content.split("\n") if line.strip())
            assert prompt_text("<image>" * found.placeholders + found.text, options) == squeezed
            gold = found.answer if found.gold is None else options[found.gold]
            assert target_text(options, found.gold, gold) == answer.strip()


@pytest.mark.parametrize(
    ("name", "split", "where"),
    [
        ("Med_MIM_benchmark_Held_in_Temporal.json", "benchmark", "temporal"),
        ("Med_MIM_benchmark_Held_in_Reasoning.json", "benchmark", "reasoning"),
        ("Med_MIM_benchmark_Held_in_Comparison.json", "benchmark", "comparison"),
        ("Med_MIM_benchmark_Held_in_Coreference.json", "benchmark", "coreference"),
        ("Benchmark_Dataset/Med_MIM_benchmark_Held_in_Co-reference.json", "benchmark", "coreference"),
        ("Med_MIM_benchmark_Held_out_RAD.json", "benchmark", "rad"),
        ("held-out-odir.json", "benchmark", "odir"),
        ("Instruction_Dataset/Med_MIM_train_inherent_Comparison.json", "train", "comparison"),
        ("Med_MIM_train_composed.json", "train", "composed"),
        ("Med_MIM_train_composed_Temporal.json", "train", "composed"),
    ],
)
def test_file_names_say_the_set(name, split, where):
    found = records.slot_from_name(name)
    assert (found.split, found.set) == (split, where)
    assert found.ability == (where if where not in ("rad", "odir") else "comparison")


@pytest.mark.parametrize(
    "name",
    ["questions.json", "Med_MIM_train.json", "Temporal.json", "Med_MIM_train_RAD.json", "Med_MIM_benchmark_composed.json",
     "Med_MIM_benchmark_radiology.json", "Med_MIM_train_benchmark_Temporal.json", "train_temporal_reasoning.json"],
)  # fmt: skip
def test_a_name_that_says_no_set_is_refused(name):
    with pytest.raises(ReleaseError, match="does not say where its questions belong") as error:
        records.slot_from_name(name)
    assert name in str(error.value)
    assert "Med_MIM_train_inherent_<Set>.json" in str(error.value)


@pytest.mark.parametrize(
    ("path", "patient"),
    [
        ("cohort_1/25548754/1.2.847.11/1.2.841.11/1.2.826.0.1.png", "embed/25548754"),
        ("cohort_2/18452206/1/2/3.png", "embed/18452206"),
        ("ct1_LUMIERE_images_tumor1200px_256x256/Patient-069/slice_76/week_001.png", "lumiere/Patient-069"),
        ("p17/p17950066/s59393382/2f2da075-115e38d3.png", "ms_cxr_t/17950066"),
        ("synpic54610.jpg", "vqa_rad/synpic54610"),
        ("Training Images/0_left.jpg", "odir/0"),
        ("Training Images/4784_right.jpg", "odir/4784"),
        ("PMC3616088_F2.jpg", "pmc/PMC3616088"),
        ("23572690_Fig4.jpg", "pmc/23572690"),
    ],
)
def test_paths_say_source_and_patient(path, patient):
    assert records.origin_from_path(path) == (patient.split("/")[0], patient)


@pytest.mark.parametrize("path", ["", "photo.png", "cohort_1/x", "Training Images/x_left.jpg", "p10/x/s1/a.png", "12_left.jpg"])
def test_a_path_of_no_known_source(path):
    assert records.origin_from_path(path) is None


def test_every_released_path_is_known(release_files):
    for path in release_files.glob("*.json"):
        assert all(records.origin_from_path(image) for record in records.read_records(path) for image in record.images)
