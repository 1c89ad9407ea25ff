"""Reading replies: the guide's strings, the grammar's forms, and properties over generated options and replies."""

import itertools
import re
import time
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from medmim.questions.prompt import LETTERS
from medmim.scoring.reply_parser import has_duplicate_options, is_same_option, parse_reply

REPLIES = Path(__file__).with_name("replies.txt")

X = ["edema", "effusion", "pneumonia", "pneumothorax"]
IMAGES = ["first image", "second image", "third image"]
MASS = ["benign", "malignant", "normal tissue", "probably benign"]
BIRADS = [
    "negative",
    "benign",
    "probably benign",
    "suspicious",
    "highly suggestive of malignancy",
    "known malignancy",
    "additional",
]
SEQUENCES = ["T1", "CT1", "T2", "FLAIR"]
YES_NO = ["yes", "no"]
NINE = [f"finding {n}" for n in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")]


def forms(block: str) -> list[str]:
    """Replies of a block, separated by ¦, with ⏎ for a line break."""
    return [form.strip().replace("⏎", "\n") for line in block.split("\n") if line for form in line.split(" ¦ ")]


def words(block: str) -> list[str]:
    return block.split()


def outcome(reply: str, options: list[str]) -> int | str:
    reading = parse_reply(reply, options)
    assert (reading.index is None) == (reading.status != "ok")
    return reading.status if reading.index is None else reading.index


# The guide's table of peers' faults

GUIDE = [
    ("", X, "unparsed"),
    ("I am sorry, I cannot interpret medical images", X, "refused"),
    ("A benign mass is seen", X, "unparsed"),
    ("A benign mass is seen", ["cyst", "benign mass", "scar"], 1),
    ("The answer is B, not A.", X, 1),
    ("Not A. The answer is (C).", X, 2),
    ("The second image shows a mass", IMAGES, 1),
    ("The second image shows a mass", X[:3], "unparsed"),
    ("The kidney is normal", YES_NO, "unparsed"),  # "no" in "normal"
    ("The answer is G.", BIRADS, 6),
]
LETTER_FORMS = forms("""
B ¦ b ¦ B. ¦ B) ¦ (B) ¦ [B] ¦ B: ¦ B! ¦ <B> ¦ {B} ¦ **B** ¦ __B__ ¦ *B*. ¦ `B` ¦ "B" ¦ 'B' ¦ “B” ¦ «B» ¦ $B$ ¦ ⏎⏎ B ⏎ ¦ - B
> B ¦ # B ¦ 1. B ¦ B⏎ ¦ Ｂ ¦ （Ｂ） ¦ 【B】 ¦ 「B」 ¦ B。 ¦ Ｂ：effusion ¦ B、effusion ¦ B: effusion ¦ B. effusion ¦ B) effusion
(B) effusion ¦ B - effusion ¦ B – effusion ¦ B effusion ¦ **B**: effusion ¦ **B: Effusion.** ¦ B.effusion ¦ B, effusion
B = effusion ¦ B → effusion ¦ B: "effusion" ¦ B (effusion) ¦ B: the effusion ¦ option B ¦ Option B. ¦ Option (B) ¦ choice B
Option B: effusion ¦ Letter B ¦ Answer B ¦ option B shows it ¦ Answer: B ¦ Answer:B ¦ ANSWER: b ¦ Answer - B ¦ **Answer:** B
### Answer⏎B ¦ Answer: (B) ¦ Answer: **B. effusion** ¦ Ans: B ¦ The answer is B ¦ The answer is: B. ¦ The answer is (B).
The correct answer is B) effusion. ¦ The correct option is B ¦ The answer is option B ¦ The answer is "B".
The best choice is B because the lung is wet ¦ My answer would be B. ¦ Answer = B ¦ The answer to this question is B.
The most likely diagnosis is (B) effusion ¦ Correct answer: B ¦ The answer is therefore B. ¦ I choose B ¦ I would go with B.
I'd pick option B ¦ I think it is B. ¦ It's B. ¦ It must be B: effusion ¦ So, B. ¦ This is (B). ¦ B is correct.
Option B is the correct answer ¦ B is the most likely answer ¦ (B) is right ¦ I believe B is the best choice.
Final answer: B ¦ The final answer is B. ¦ Therefore, the answer is B. ¦ \\boxed{B} ¦ $\\boxed{\\text{(B)}}$ ¦ <answer>B</answer>
B, not A ¦ B not A ¦ B rather than A ¦ Not A but B ¦ Not A, but rather B. ¦ It is not A; instead B
The answer is not A but B. ¦ A is wrong, B is correct. ¦ A is incorrect. C is not the answer. The answer is B.
It isn't A. It's B. ¦ B because A is too small ¦ B is effusion, the answer is B ¦ B. Because the fluid is new.
B; the lung is wet ¦ Effusion (B) ¦ The image shows effusion (option B).
A: edema⏎B: effusion⏎C: pneumonia⏎D: pneumothorax⏎Answer: B ¦ A: it is dry.⏎B: it is wet.⏎The answer is B ¦ B⏎B
A could be.⏎C could be.⏎B ¦ <think>A? The answer is A.</think>⏎B ¦ The answer may be A. But no. Final answer: **B**
First, edema is absent; pneumonia is not seen.⏎⏎The answer is B ¦ I'm sorry, I can't be certain, but the answer is B.
The answer is B. Edema would be bilateral. ¦ The answer is B since edema is bilateral ¦ the answer is:⏎⏎**B**
""")
TEXT_FORMS = forms("""
effusion ¦ Effusion. ¦ **effusion** ¦ The effusion ¦ an effusion ¦ EFFUSION! ¦ It is effusion.
There is an effusion on the left. ¦ The answer is effusion. ¦ Answer: effusion ¦ This shows effusion, not edema.
Effusion rather than edema ¦ not edema but effusion ¦ effusion is correct ¦ Neither edema nor pneumonia: effusion.
It doesn't show edema. It shows effusion ¦ Effusion. Edema is absent.
Edema is unlikely; pneumonia can be excluded; effusion is likely.
The image does not show edema or pneumonia, it shows effusion ¦ Pleural _effusion_ is seen
Effusion⏎because the angle is blunt ¦ I can't see edema. There is effusion. ¦ Is it edema? It is effusion.
The left lung shows⏎effusion ¦ Effusion. It is unlike edema. ¦ effusion, without pneumonia
""")
AMBIGUOUS = forms("""
B: edema ¦ B. edema ¦ (B) edema ¦ B edema ¦ B - edema ¦ Answer: B. edema ¦ edema (B) ¦ B (edema) ¦ The answer is B: edema
The answer is B, edema. ¦ B. It is edema. ¦ Option B: edema ¦ B, edema ¦ A and B ¦ A, B ¦ A/B ¦ A or B ¦ A & B ¦ A. B
A. B. C. D. ¦ A⏎B ¦ Both A and B. ¦ A; B ¦ The answer is A or B ¦ The answer is either A or B. ¦ Answer: A, C
edema or effusion ¦ edema, effusion ¦ The answer is A. No, the answer is B. ¦ A. The answer is B ¦ Edema. Effusion.
edema with effusion ¦ A: edema⏎B: effusion⏎C: pneumonia⏎D: pneumothorax ¦ Choices:⏎A⏎B⏎C⏎D ¦ Final answer: A or B
""")
UNPARSED = forms("""
E ¦ Z. ¦ The answer is E ¦ ? ¦ ... ¦ ** ¦ image ¦ A mass ¦ A large mass is seen. ¦ The answer is a benign mass ¦ Hepatitis B
vitamin C deficiency ¦ Hepatitis B is the most likely answer ¦ It is a mass ¦ at 10 a.m. ¦ B-lines are seen ¦ C. diff colitis
n/a ¦ The best option a doctor has is rest ¦ edematous ¦ non-effusion ¦ postpneumonia ¦ Answer: A benign mass ¦ Answer: none
AB ¦ A's ¦ BCD ¦ Not A ¦ Not B. ¦ The answer is not B ¦ The answer isn't B. ¦ A is wrong. ¦ B is incorrect ¦ A is not it
no edema ¦ There is no evidence of edema ¦ neither edema nor effusion ¦ not edema or effusion ¦ Is it edema?
I don't think the answer is B ¦ The first image does not show edema ¦ edema is ruled out ¦ without effusion
""")
REFUSED = forms("""
I'm sorry, but I can't help with that. ¦ I cannot determine whether it is edema or effusion.
As an AI language model, I do not diagnose ¦ I am unable to view images. ¦ It is not possible to tell.
No images were provided. ¦ It cannot be determined from the images ¦ Please upload the image. ¦ I don't know
""")
OTHERS = [
    *((reply, X, "ambiguous") for reply in AMBIGUOUS),
    *((reply, X, "unparsed") for reply in UNPARSED),
    *((reply, X, "refused") for reply in REFUSED),
    ("The first image does not show a mass.", IMAGES, "unparsed"),
    ("It cannot be determined", [*X, "cannot be determined"], 4),
    # longer options hold shorter ones
    ("probably benign", MASS, 3),
    ("It is probably benign.", MASS, 3),
    ("It is benign", MASS, 0),
    ("highly suggestive of malignancy", BIRADS, 4),
    ("CT1", SEQUENCES, 1),
    ("T1-weighted", SEQUENCES, 0),
    ("T2-FLAIR", SEQUENCES, "unparsed"),
    ("left lung mass", ["left lung", "lung mass", "heart"], "ambiguous"),
    ("not malignant", ["malignant", "not malignant"], 1),
    # texts too short or common for prose
    ("Yes", YES_NO, 0),
    ("No, there is no mass", YES_NO, 1),
    ("no.", YES_NO, 1),
    ("There is no mass", YES_NO, "unparsed"),
    ("The answer is no.", YES_NO, 1),
    ("A: yes", YES_NO, 0),
    ("A: no", YES_NO, "ambiguous"),
    ("2", ["1", "2", "3"], 1),
    ("Week 2 is seen", ["1", "2", "3"], "unparsed"),
    ("12", ["1", "2", "3"], "unparsed"),
    ("The answer is 2.", ["1", "2", "3"], 1),
    ("1.5 cm", ["1", "5 cm", "2"], "unparsed"),
    # letters that are words, and texts that are letters
    ("I", NINE, 8),
    ("(I)", NINE, 8),
    ("I am not a doctor", NINE, "unparsed"),
    ("I, as an observer, see a mass", NINE, "unparsed"),
    ("The answer is I.", NINE, 8),
    ("A finding two is seen", NINE, 1),
    ("B", ["B", "A"], "ambiguous"),
    ("A", ["A", "B"], 0),
    # duplicates: text gives the first, a letter itself
    ("drusen", ["cataract", "drusen", "Drusen."], 1),
    ("C: drusen", ["cataract", "drusen", "Drusen."], 2),
    ("C", ["cataract", "drusen", "Drusen."], 2),
    ("B or C", ["cataract", "drusen", "Drusen."], 1),
    # the reply can't forge the symbols used inside
    ("\ue001", X, "unparsed"),
    ("the answer is \ue041", X, "unparsed"),
]


@pytest.mark.parametrize(("reply", "options", "expected"), GUIDE)
def test_guide(reply: str, options: list[str], expected: int | str) -> None:
    assert outcome(reply, options) == expected


@pytest.mark.parametrize("reply", [*LETTER_FORMS, *TEXT_FORMS, "\ufeffB", "  B\t", "B\u200b", "B\r\n"])
def test_form_is_read(reply: str) -> None:
    assert outcome(reply, X) == 1


def replies() -> list[tuple[str, list[str], str]]:
    """Every reply of replies.txt with its options and its outcome."""
    found, options = [], [""]
    for line in REPLIES.read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            options = line[2:].split(" ¦ ")
        elif line and not line.startswith("# "):
            outcome, reply = re.fullmatch(r"([A-Z]|[a-z]+) \|(?: (.*))?", line).groups()  # type: ignore[union-attr]
            found.append(((reply or "").replace("⏎", "\n"), options, outcome))
    return found


def letter_or_status(reply: str, options: list[str]) -> str:
    reading = parse_reply(reply, options)
    return reading.letter or reading.status


def test_replies_written_by_hand() -> None:
    read_as = [(reply, expected, letter_or_status(reply, options)) for reply, options, expected in replies()]
    assert [case for case in read_as if case[1] != case[2]] == []
    assert len(read_as) > 1400


DRESS = {
    "lower case": str.lower,
    "upper case": str.upper,
    "spaces around": "  {} \n".format,
    "lines around": "\n\n{}\n\n".format,
    "double spaces": lambda text: text.replace(" ", "  "),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "Windows' lines": lambda text: text.replace("\n", "\r\n"),
    "a full stop": lambda text: f"{text}." if text[-1:].isalnum() else text,
    "bold": "**{}**".format,
    "italic": "_{}_".format,
    "code": "`{}`".format,
    "a quotation": "> {}".format,
    "a list": "- {}".format,
    "a heading": "## {}".format,
    "full width": lambda text: text.translate(str.maketrans("():,", "（）：，")),
}


@pytest.mark.parametrize("dress", DRESS)
def test_dress_changes_nothing(dress: str) -> None:
    """But where a reply was cut off at the article, which in other dress is the letter."""
    changed = [
        (reply, expected, now)
        for reply, options, expected in replies()
        if reply.strip() and not re.fullmatch(r"(?:It|This) is a", reply)
        if (now := letter_or_status(DRESS[dress](reply), options)) != expected
    ]
    assert changed == []


@pytest.mark.parametrize(("reply", "options", "expected"), OTHERS)
def test_other(reply: str, options: list[str], expected: int | str) -> None:
    assert outcome(reply, options) == expected


def test_letter_of_the_option() -> None:
    assert parse_reply("The answer is (C).", X).letter == "C"
    assert parse_reply("no idea", X).letter == ""


def test_duplicates() -> None:
    options = ["Cataract", "drusen", "cataract. ", "glaucoma"]
    assert has_duplicate_options(options)
    assert is_same_option(options, 0, 2)
    assert not is_same_option(options, 0, 1)
    assert not has_duplicate_options(X)


def test_wrong_number_of_options() -> None:
    with pytest.raises(ValueError, match="27 options"):
        parse_reply("A", ["x"] * 27)
    with pytest.raises(ValueError, match="0 options"):
        parse_reply("A", [])


# Properties

seeded = settings(derandomize=True, database=None, deadline=None)  # the same cases on every machine
WORDS = words("""
lesion opacity nodule effusion edema benign malignant cardiomegaly left right lower upper lobe fracture cyst calcification
stable worse improved progressive partial complete response resection mild severe drusen cataract glaucoma retinopathy FLAIR
CT1 mm BI-RADS grade-3
""")
PROSE = words("""
a an the image shows scan of patient with and is seen there lung I we which because hepatitis B vitamin C stage B1 in both
right-sided A.M. this looks like from before, now. Then; but (see figure) mass tissue week 12 at p.m. contrast D-dimer T-cell
grade type class group panel Kerley lines factor segment category I/B b/l est ist es é A/P
""")
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
option_lists = st.lists(texts, min_size=2, max_size=26, unique_by=str.casefold)
small_lists = st.lists(texts, min_size=2, max_size=7, unique_by=str.casefold)

BY_LETTER = forms("""
{L} ¦ {L}. ¦ ({L}) ¦ {L}) ¦ [{L}] ¦ **{L}** ¦ {L}: {t} ¦ {L}. {t} ¦ {L}) {t} ¦ ({L}) {t} ¦ {L} - {t} ¦ **{L}**: {t}
Answer: {L} ¦ Answer: {L}. {t} ¦ The answer is {L}. ¦ The answer is ({L}). ¦ The correct answer is {L}: {t}. ¦ option {L}
Option {L}: {t} ¦ I choose {L}. ¦ My answer is {L} ¦ Final answer: {L} ¦ \\boxed{{{L}}} ¦ <answer>{L}</answer>
{L} is correct. ¦ {L} is the correct answer. ¦ It is {L}. ¦ The answer is {L}, not {M}. ¦ Not {M}. The answer is ({L}).
Not {M} but {L}. ¦ The answer is not {M} but {L} ¦ <think>Maybe {M}.</think>{L}
The scan is dark.⏎It was bright.⏎⏎Answer: {L} ¦ ({L}): {t} ¦ {t} ({L}) ¦ {M} is wrong. {L} is correct.
答案是{L}。 ¦ 正确答案：{L} ¦ 选{L} ¦ 正解は{L}です。 ¦ 정답은 {L}입니다. ¦ Antwort: {L} ¦ Ответ: {L}
Die richtige Antwort lautet {L}. ¦ Réponse : {L}
La réponse est {L}. ¦ La bonne réponse est la {L}. ¦ La respuesta correcta es la {L}. ¦ La risposta corretta è {L}. ¦ الإجابة: {L}
{{"answer": "{L}"}} ¦ Therefore, {L} ¦ {L}: correct ¦ {L} best describes the images. ¦ I'll go with {L}. ¦ The correct one is {L}.
The answer that fits best is {L}. ¦ The answer is {L}. {M} is wrong. ¦ Option {M}: too small. Option {L}: it fits. Answer: {L}
The answer is {L} because the scan is dark. ¦ The correct option is {L}) {t}. ¦ {L}: {t}⏎⏎Done.
""")
BY_TEXT = forms("""
{t} ¦ {t}. ¦ The {t} ¦ **{t}** ¦ The answer is {t}. ¦ Answer: {t} ¦ The scan shows {t}. ¦ There is {t} here. ¦ “{t}”
It is {t}, not {u}. ¦ Not {u} but {t}. ¦ Final answer: {t} ¦ {t} rather than {u}
""")


def said(form: str, options: list[str], gold: int, other: int) -> str:
    return form.format(L=LETTERS[gold], M=LETTERS[other], t=options[gold], u=options[other])


@st.composite
def cases(draw: st.DrawFn, forms: list[str]) -> tuple[str, list[str], int]:
    options = draw(option_lists)
    gold, other = draw(st.permutations(range(len(options))))[:2]
    return said(draw(st.sampled_from(forms)), options, gold, other), options, gold


@settings(seeded, max_examples=600)
@given(cases(BY_LETTER + BY_TEXT))
def test_any_option_in_any_form_is_read(case: tuple[str, list[str], int]) -> None:
    reply, options, gold = case
    assert outcome(reply, options) == gold


@settings(seeded, max_examples=200)
@given(cases(BY_LETTER))
def test_after_the_list_of_options(case: tuple[str, list[str], int]) -> None:
    _, options, gold = case
    echo = "\n".join(f"{LETTERS[i]}: {text}" for i, text in enumerate(options))
    assert outcome(f"{echo}\nAnswer: {LETTERS[gold]}", options) == gold
    assert outcome(echo, options) == "ambiguous"


@settings(seeded, max_examples=600)
@given(st.lists(st.sampled_from(PROSE), min_size=2, max_size=12).map(" ".join), small_lists)
@example("a B", X)
def test_prose_without_an_option_is_never_read(prose: str, options: list[str]) -> None:
    assume(not re.search(r"(?i)^[abc] because\b|\bthis is [abc]\W*$", prose))  # these name one
    assume(not set(" ".join(options).casefold().split()) & {w.casefold().strip(".,;()") for w in prose.split()})
    assert parse_reply(prose, options).index is None


@settings(seeded, max_examples=400)
@given(
    cases(BY_LETTER + BY_TEXT),
    st.sampled_from([str.upper, str.lower, str.swapcase, str.title]),
    st.sampled_from(["{}", "{}.", "**{}**", "_{}_", "`{}`", "> {}", "- {}", "# {}", "***{}***", '"{}"', "{}\n\n.", "**{}**."]),
    st.sampled_from(["", " ", "\n", "\t\n  "]),
    st.sampled_from(["", " ", "\n\n", " \t"]),
    st.sampled_from([" ", "  ", "\u00a0", "\t ", " \u200b"]),
)
def test_case_whitespace_markdown_and_full_stop_change_nothing(case, change, dress, before, after, space) -> None:
    reply, options, gold = case
    assume("<think>" not in reply or dress in ("{}", "{}."))
    assert outcome(before + dress.format(change(reply).replace(" ", space)) + after, options) == gold


@settings(seeded, max_examples=300)
@given(cases(BY_TEXT), st.randoms(use_true_random=False))
def test_permuting_options_permutes_what_a_text_gives(case, random) -> None:
    reply, options, gold = case
    order = random.sample(range(len(options)), len(options))
    assert order[parse_reply(reply, [options[i] for i in order]).index] == gold  # type: ignore[index]


@settings(seeded, max_examples=300)
@given(small_lists, st.data())
def test_permuting_options_permutes_what_a_letter_gives(options: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(options))))
    gold, other = data.draw(st.permutations(range(len(options))))[:2]
    form = data.draw(st.sampled_from(BY_LETTER + BY_TEXT))
    shown = [options[i] for i in order]
    reading = parse_reply(said(form, shown, order.index(gold), order.index(other)), shown)
    assert reading.index is not None
    assert order[reading.index] == gold


@settings(seeded, max_examples=500)
@given(st.text(max_size=200), small_lists)
def test_any_text_is_read_without_error(reply: str, options: list[str]) -> None:
    outcome(reply, options)


@settings(seeded, max_examples=200)
@given(small_lists, st.data())
def test_two_answers_are_ambiguous(options: list[str], data: st.DataObject) -> None:
    one, other = data.draw(st.permutations(range(len(options))))[:2]
    form = data.draw(
        st.sampled_from(["{L} and {M}", "{L}, {M}", "{L} or {M}", "Answer: {L} or {M}", "{L}: {u}", "{L}. {u}", "{u} ({L})"])
    )
    assert outcome(said(form, options, one, other), options) == "ambiguous"


def test_long_replies_are_read_in_time() -> None:
    for piece in ("a, b, c or ", "not edema or ", "the answer is ", "(", "i think that if ", "A: edema\n", "- " * 50, "<answer>"):
        start = time.process_time()
        outcome(piece * (60_000 // len(piece)), X)
        assert time.process_time() - start < 5, f"60,000 characters of {piece!r}"


def test_every_letter() -> None:
    options = [f"finding {''.join(pair)}" for pair in itertools.product("xyzvw", "xyzvwu")][:26]
    for i, letter in enumerate(LETTERS):
        for form in BY_LETTER:
            assert outcome(said(form, options, i, (i + 1) % 26), options) == i, (letter, form)
