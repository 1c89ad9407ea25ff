r"""Which option a reply names: an anchored grammar over the item's own options that never guesses.

The reply is normalised (NFKC, case, markdown, quotes, dashes, full-width punctuation) and lexed: each option text that stands
in it between word boundaries, and each letter in a form that can't be a word, becomes one symbol. Over these symbols claims are
sought, strongest first, and the strongest kind present decides:

1. final    "Final answer: B", "Therefore, the answer is B", "\boxed{B}", "<answer>B</answer>"
2. answer   "The answer is (C)", "Answer: B", "I choose B", "B is correct", "not A but B", or an option alone on the last line
3. label    the reply begins with "B.", "(B)", "B: text", "option B" ..., or its first sentence is an option's text
4. mention  an option's exact text, "option B", or a line "B: ...", anywhere, asserted and not negated

All claims of that kind must name one option, else the reply is ambiguous; so it is where a letter and the text bound to it
disagree. A bare letter inside a sentence is never read ("A benign mass", "hepatitis B"), a text as short or common as "no" or
"2" only where it stands for the answer, and nothing is inferred from what a reply excludes.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Status = Literal["ok", "ambiguous", "unparsed", "refused"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Reading:
    """What a reply says: index of the option (None unless status is ok), the rule that decided, and the status."""

    index: int | None
    rule: str
    status: Status

    @property
    def letter(self) -> str:
        """Letter of the option read, or empty."""
        return "" if self.index is None else LETTERS[self.index]


# Symbols: T an option's text, W a text too short or common to be read in running prose, L a letter. Private-use characters,
# which normalisation takes out of the reply itself.

_T0, _W0, _L0, _END0 = 0xE000, 0xE020, 0xE040, 0xE05F
_T, _W, _L, _TW, _X = (
    f"[{chr(a)}-{chr(b)}]" for a, b in ((_T0, _T0 + 25), (_W0, _W0 + 25), (_L0, _L0 + 25), (_T0, _L0 - 1), (_T0, _END0))
)

_MARKS = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»「」『』〝〞", '"'),
        **dict.fromkeys("‘’‚‛´", "'"),
        **dict.fromkeys("‐‑‒–—―−•", "-"),
        **dict.fromkeys("【〔〖《〈", "["),
        **dict.fromkeys("】〕〗》〉", "]"),
        **dict.fromkeys("。।", "."),
        **dict.fromkeys("、،", ","),
        **dict.fromkeys("*~`$\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
        **dict.fromkeys(map(chr, range(_T0, _END0 + 1)), ""),
        **{"؟": "?", "؛": ";", "→": "->", "_": " "},
    }
)
_EDGE = " \n.,;:!?\"'"
_THINKING = re.compile(r"^.*</think(?:ing)?>(?=.*\w)", re.S)
_WRAPPED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{)?([^{}]*)\}+|<answer>([^<]*)</answer>")


def normalise(text: str) -> str:
    """The text in lower case and one set of punctuation marks, without markdown, lines trimmed and empty ones dropped."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_MARKS)
    text = re.sub(r"(?<!\w)'(\w)'(?!\w)", r'"\1"', text)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _core(text: str) -> str:
    """What of an option's text must stand in a reply: all but edge punctuation and a leading article."""
    return re.sub(r"^(?:the|an?) (?=\S)", "", normalise(text).replace("\n", " ").strip(_EDGE))


_COMMON = frozenset({"yes", "no", "none", "true", "false", "not", "nothing", "all", "both", "neither"})


@dataclass(frozen=True)
class _Text:
    core: str
    index: int  # first option with this text
    weak: bool


@dataclass(frozen=True)
class _Options:
    """An item's options. Equal texts are one option: `canon` gives the first index with the same text."""

    canon: tuple[int, ...]
    texts: tuple[_Text, ...]
    letters: dict[str, int]  # texts that are themselves a letter


@lru_cache(maxsize=4096)
def _prepare(options: tuple[str, ...]) -> _Options:
    if not 0 < len(options) <= len(LETTERS):
        raise ValueError(f"{len(options)} options: expected 1 to {len(LETTERS)}")
    cores = [_core(text) for text in options]
    first: dict[str, int] = {}
    canon = tuple(first.setdefault(core, i) if core else i for i, core in enumerate(cores))
    letters = {t: i for t, i in first.items() if re.fullmatch("[a-z]", t)}
    texts = [
        _Text(t, i, t in _COMMON or len(t) < 2 or not re.search(r"[^\W\d]", t)) for t, i in first.items() if t not in letters
    ]
    return _Options(canon, tuple(texts), letters)


def duplicates(options: Sequence[str]) -> bool:
    """Whether two options have the same text, case and edge punctuation aside: such an item is credited by text."""
    return len(set(_prepare(tuple(options)).canon)) < len(options)


def same_option(options: Sequence[str], one: int, other: int) -> bool:
    """Whether two indices name the same option text."""
    canon = _prepare(tuple(options)).canon
    return canon[one] == canon[other]


# Lexing

_ORGANISM = r"(?!\s?\.\s(?:coli|diff|difficile|albicans|aureus|aeruginosa|pneumoniae|faecalis|fumigatus|pylori)\b)"
_ON = (
    r"\s(?:is|isn't|are|was|would|cannot|can't|seems|shows|has|looks|appears|and|or|but|which|given|as)\b"  # the sentence goes on
)
_LETTER = re.compile(
    r"(?:(?<=\boption )|(?<=\bchoice )|(?<=\bletter ))(?P<named>[b-hj-z])(?![\w'\-])|"
    rf"(?<![\w'\-])(?<!\w\.)(?<!\w\w/)(?P<letter>[a-z])(?![\w'\-]){_ORGANISM}"
    r"(?=(?P<mark>\s?[)\]}\">:;!?|=]|\s?\.(?!\w)|\s*(?:$|\n))|(?P<comma>\s?[,/&+]|\s-+>?\s)"
    rf"|(?P<word>\s(?:because|since|due|based|not|rather|instead)\b|{_ON})"
    rf"|(?P<text>\s?[\"'(]*{_TW}))"
)
_NOT_I = re.compile(rf"\s?,?\s(?:is|isn't|but|not|rather|because|since)\b|\s?[,\-]+>?\s?[\"'(]*{_TW}|\s?[/&+]")


def _whole(s: str, start: int, end: int) -> bool:
    """Whether s[start:end] is no part of a longer word, number or hyphenated compound ("T1-weighted" is still T1)."""
    joins = "-/" if s[start].isalpha() else "-/.,"
    if start and (s[start - 1].isalnum() or (start > 1 and s[start - 1] in joins and s[start - 2].isalnum())):
        return False
    joins = "-/" if s[end - 1].isalpha() else "-/.,"
    if end < len(s) and (s[end].isalnum() or (s[end] in joins and s[end + 1 : end + 2].isalnum())):
        return s.startswith("-weighted", end)
    return True


def _lex(s: str, options: _Options) -> str:
    flat, spans = s.replace("\n", " "), []
    for text in options.texts:
        at = flat.find(text.core)
        while at >= 0:
            end = at + len(text.core)
            # "no evidence" is no answer "no"
            prose = text.weak and text.core in _COMMON and not re.match(r"\s?[.,;:!?)\]\"'\n]|\s-|\s*$", s[end : end + 3])
            if _whole(flat, at, end) and not prose:
                spans.append((at, -end, (_W0 if text.weak else _T0) + text.index))
            at = flat.find(text.core, at + 1)
    out, at = [], 0
    for start, minus_end, symbol in sorted(spans):
        if -minus_end <= at:
            continue  # inside a longer option's text
        out += [s[at : max(start, at)], chr(symbol)]  # of texts that overlap both are named
        at = -minus_end
    lexed = "".join(out) + s[at:]

    def letter(match: re.Match[str]) -> str:
        index = ord(match["letter"] or match["named"]) - ord("a")
        # where "a" and "i" may be article and pronoun: "a <text>", "i, as an ai", "i would"
        word = match["letter"] == "a" and match["text"]
        if match["letter"] == "i" and match["mark"] is None:
            word = not _NOT_I.match(match.string, match.end())
        return match.group() if word or index >= len(options.canon) else chr(_L0 + index)

    return _LETTER.sub(letter, lexed)


# Claims

_NOUN = r"(?:option|choice|letter|alternative)"
_ARTICLE = r"(?:(?:the|an?)\s)?"
_LABEL = rf"(?:(?:{_NOUN}|answer)\s?[:#]?\s?)?[(\[{{\"'<]{{0,3}}\s?{_L}(?:\s?[)\]}}\"'>]{{1,3}})?"
_TEXT = rf"{_ARTICLE}[\"'(\[]{{0,3}}{_ARTICLE}{_TW}+[\"')\]]{{0,3}}"
_THAT = r"(?:(?:because |since )?(?:it is|it's|this is|that is|which is|i\.e\.,?|namely|meaning)\s)?"
_STOP = r"(?=\s*$|\s*[.,;!?)\n])"


def _listed(after_full_stop: str) -> str:
    """One option or a list: a letter with the text bound to it, or a text with its letter in brackets.

    after_full_stop: what must follow a text for it to be bound to the letter in "B. text".
    """
    bound = rf"(?:\s?[:),;\-(\]=>]*\s?{_THAT}{_TEXT}|\s?\.\s?{_THAT}{_TEXT}{after_full_stop})"
    named = rf"(?>{_LABEL}{bound}?|{_TEXT}(?:\s?[(\[]\s?(?:{_NOUN}\s)?{_L}\s?[)\]])?)"
    comma = rf"(?:\s?(?:[,/&+;]|\.(?=\s?(?:{_LABEL}|{_TEXT}{_STOP}))|\s(?:and|or)\b|,\s?(?:and|or)\b|and/or)\s?(?:also\s)?)"
    return rf"(?P<claim>(?:(?:both|either)\s(?={named}{comma}))?{named}(?:{comma}{named}){{0,25}}+)"


_LIST, _STRICT = _listed(_STOP), _listed("")
_ONE = re.sub(r"\(\?P<claim>", "(?:", _LIST)
_LEAD = r"(?:[-+>#]++\s?|\d+[.)]\s)*+"
_BE = r"(?:is|are|was|be|would be|will be|should be|must be|has to be|could be|may be|might be|seems to be|appears to be)"
_GOOD = r"(?:correct|right|best|true|proper|appropriate|accurate|suitable|likely|probable)"
_SURE = r"(?:(?:therefore|thus|most likely|likely|probably|clearly|definitely|indeed),?\s)?"
_HENCE = r"(?:therefore|thus|hence|in conclusion|to conclude|finally|in summary|overall|ultimately)"
_PHRASE = re.compile(
    rf"(?P<final>\b(?:{_HENCE},?\s(?:i (?:think|believe)\s(?:that\s)?)?(?:the |my )?(?:(?:most )?{_GOOD}\s)*|final\s))?"
    r"\b(?:answer|ans|option|choice|response|selection|diagnosis|conclusion)"
    r"(?:\s(?:to|for|of|here)\b[^.,:;!?\n]{0,40}?)?"
    rf"\s?(?:{_BE}(?P<not>\snot|n't)?\s?:?|:|=|-+>?)\s*(?:that\s)?{_SURE}{_LIST}"
)
_CHOOSE = re.compile(
    r"\b(?:(?:i|we)(?:'d|'ll|\swould|\swill)?(?P<not>\snot|n't)?(?:\shave to)?"
    r"\s(?:choose|chose|pick|picked|select|selected|go with|say|opt for|answer)\s"
    rf"|(?:(?:therefore|thus|hence|so),?\s|(?:it|this|that)(?:'s|\s{_BE})\s)(?P<nor>not\s)?{_SURE}"
    rf"(?={_LABEL}\s*(?:$|[.,;!?\n])|{_LABEL}[:)]\s?{_TEXT})){_LIST}"
)
_POST = re.compile(
    r"(?:^|[.,;:!?\n(]\s?|\b(?:so|that|think|believe|thus|therefore|hence|and|but|say|while|whereas|only)\s)"
    rf"{_LEAD}{_LIST}\s(?:{_BE}|seems|appears|looks)(?P<not>\snot|n't)?"
    rf"\s(?:to be\s)?(?:the\s|an?\s)?(?:most\s|more\s|only\s)?(?:{_GOOD}|(?:final\s)?answer)\b"
)
_BUT = re.compile(
    rf"\b(?:not|isn't)\s{_ONE}\s?[,;.]?\s?(?:but|rather|instead)\s(?:rather\s|instead\s)?(?:it is\s|it's\s)?{_LIST}"
)
_START = re.compile(rf"{_LEAD}{_STRICT}(?P<after>.*)", re.S)
_ALONE = re.compile(rf"{_LEAD}{_STRICT}[\s.,;:!?)\]\"'>]*$")
_LINE = re.compile(rf"(?:(?<=\n)|^){_LEAD}(?P<claim>{_LABEL}(?:\s?[:),;.\-]*\s?{_TEXT})?)(?!{_ON})")
_MENTION = re.compile(
    rf"(?P<claim>{_T}+(?:[\"']?\s?[(\[]\s?(?:{_NOUN}\s)?{_L}\s?[)\]])?|\b{_NOUN}\s[(\"']*{_L}|[(\[]\s?{_L}\s?[)\]]\s?{_ARTICLE}{_T})"
)

# What takes a claim back: doubt or negation before it, denial after it, a refusal or question around it

_DOUBT = re.compile(
    r"(?:n't|\b(?:not|never|doubt|whether|if|unsure|unclear|cannot|no))"
    rf"(?:\s(?:think|believe|know|sure|certain|say|determine|tell|that|the|if|whether|what|which|my|most|{_GOOD}))*\s?$"
)
_FILLER = (
    r"(?:(?:a|an|the|any|of|to|be|in|likely|option|choice|letter|answer|evidence|signs?|suggestive|consistent|with|indicative|"
    r"necessarily|really|definitely|clearly|correct|show|have|appear|represent|for|it|is|that|been|as|by|just|simply)\s)"
)
_NEGATED = re.compile(
    r"(?:\b(?:not|no|non|never|neither|nor|without|rather than|instead of|except|exclud(?:ing|es?|ed)|rul(?:ed?|es|ing) out|"
    r"unlike|less likely|unlikely|free of|absence of|lack of|lacks?|negative for|as opposed to|against|cannot|whether|if)"
    rf"|n't)[\s\-]{_FILLER}{{0,4}}[\"'(\[]*(?:{_X}[\"')\]]*\s?,?\s?(?:or|nor)\s{_FILLER}{{0,3}}[\"'(\[]*){{0,9}}$"
)
_FALSE = r"(?:incorrect|wrong|false|excluded|ruled out|unlikely|absent|less likely|eliminated)"
_DENIED = re.compile(
    r"[\"')\]]*,?\s(?:"
    r"(?:does|do|did|has|have|had|is|are|was|were|can|could|would|should|will|might|may|must)(?:\snot|n't)\b|cannot\b|can't\b|lacks?\b|"
    r"(?:shows?|has|have|had|contains?|demonstrates?|displays?|reveals?)\sno\b|"
    rf"(?:(?:is|are|was|were|seems|looks|(?:can|could|would|has) be(?:en)?)\s)?(?:also\s)?{_FALSE}\b)"
)
_WRONG = re.compile(rf"[\"')\]]*,?\s(?:(?:{_BE}|seems|can be)\s(?:not|{_FALSE})\b|isn't\b|cannot be\b|can't be\b)")
_ABLE = (
    r"(?:interpret|analy[sz]e|view|see|determine|provide|answer|assist|help|diagnose|comment|access|tell|say|offer|give|identify|"
    r"assess|evaluate|make|process|choose|select|comply|conclude|read|open|decide|examine|respond|know|be|do)\b"
)
_REFUSAL = re.compile(
    r"\bsorry\b|\bi apologi[sz]e\b|\b(?:as|i am|i'm)(?: just| only)? an? (?:ai|artificial|language|large)\b|"
    r"\b(?:i|we)(?: am| was| are|'m|'re)? ?(?:cannot|can't|can not|could not|couldn't|unable to|not able to|won't|will not|"
    rf"must decline to|decline to|refuse to|not (?:qualified|permitted|allowed) to)(?:\s[a-z]+){{0,2}}?\s{_ABLE}|"
    r"\b(?:i|we) (?:do not|don't) (?:know|have)\b|"
    rf"(?:^|\n|[.;] )(?:unable to|cannot|can't|not able to) {_ABLE}|"
    r"\b(?:impossible|not possible) to (?:determine|tell|say|answer|know)\b|"
    r"\b(?:cannot|can't|can not|could not) be (?:determined|answered|said|concluded|decided)\b|"
    r"\bno images? (?:(?:is|are|was|were|has been|have been) )?(?:provided|attached|given|available|visible|included|supplied)\b|"
    r"\b(?:please|kindly) (?:provide|upload|attach|share|consult)\b|\b(?:insufficient|not enough) information\b"
)
_BREAK = re.compile(r"[.!?](?=\s|$)|\n")
_WINDOW = 300  # characters around a claim that may take it back


def _before(pattern: re.Pattern[str], s: str, at: int) -> bool:
    return pattern.search(s, max(0, at - _WINDOW), at) is not None


def _sentence(s: str, at: int) -> str:
    """The sentence around a place, with the mark that ends it."""
    start = max((m.end() for m in _BREAK.finditer(s, max(0, at - _WINDOW), at)), default=max(0, at - _WINDOW))
    end = _BREAK.search(s, at, at + _WINDOW)
    return s[start : end.end() if end else at + _WINDOW]


def _answers(s: str, *, final: bool) -> Iterator[str]:
    """Where the reply says what the answer is; only what it calls final, or all."""
    for pattern in (_PHRASE,) if final else (_PHRASE, _CHOOSE, _POST, _BUT):
        for match in pattern.finditer(s):
            groups = match.groupdict()
            if groups.get("not") or groups.get("nor") or (final and not groups["final"]):
                continue
            if not _before(_DOUBT, s, match.start()):
                yield match["claim"]


def _ends(s: str) -> tuple[str | None, str | None]:
    """The option a reply begins with, set off by its form or punctuation, and the option alone on its last line.

    Lines of an enumeration ("A: ...", "B: ...") are neither.
    """
    forms: list[tuple[str, bool, bool]] = []  # by line: its label, whether with a text, whether nothing else
    for line in s.split("\n"):
        alone, label = _ALONE.match(line), _LINE.match(line)
        claim = alone["claim"] if alone else label["claim"] if label else ""
        forms.append((claim, bool(re.search(_TW, claim)), alone is not None))

    def enumerated(line: int) -> bool:
        return any(
            claim and claim != forms[line][0] and form == forms[line][1:] for claim, *rest in forms if (form := tuple(rest))
        )

    last = forms[-1][0] if forms[-1][2] and not enumerated(-1) else None
    match = _START.match(s)
    if match is None or (forms[0][0] and enumerated(0)):
        return None, last
    claim, after = match["claim"], match["after"]
    if re.search(_L, claim):
        return None if re.match(_ON, after) or _WRONG.match(after) else claim, last
    set_off = r"\s?[.!\n]|$" if re.search(_T, claim) else r"\s?[.,;:!?\n]|\s-|$"
    return claim if re.match(set_off, after) else None, last


def _mentions(s: str) -> Iterator[str]:
    """Options named anywhere and asserted there."""
    for pattern in (_MENTION, _LINE):
        for match in pattern.finditer(s):
            start, end = match.span("claim")
            if _before(_NEGATED, s, start) or _DENIED.match(s, end):
                continue
            sentence = _sentence(s, start)
            if not sentence.endswith("?") and not _REFUSAL.search(sentence):
                yield match["claim"]


def read(reply: str, options: Sequence[str]) -> Reading:
    """Read which of an item's options (1 to 26 texts, lettered A, B, ...) a reply names.

    Where options share a text, the text alone gives the first of them, a letter the one it says.
    Raises ValueError for no option or more than 26.
    """
    known = _prepare(tuple(options))
    plain = _WRAPPED.sub(lambda m: f"\nfinal answer: {m[1] or m[2]}\n", _THINKING.sub("", reply.casefold()))
    s = _lex(normalise(plain), known)
    if not s:
        return Reading(None, "empty", "unparsed")

    def decide(rule: str, claims: Sequence[str]) -> Reading:
        symbols = [ord(c) for claim in claims for c in claim if _T0 <= ord(c) <= _END0]
        letters = [c - _L0 for c in symbols if c >= _L0]
        named = {known.canon[i] for i in letters} | {c - (_W0 if c >= _W0 else _T0) for c in symbols if c < _L0}
        named |= {known.letters[text] for i in letters if (text := LETTERS[i].lower()) in known.letters}
        if len(named) > 1:
            return Reading(None, rule, "ambiguous")
        return Reading(letters[0] if letters else named.pop(), rule, "ok")

    first, last = _ends(s)
    if final := list(_answers(s, final=True)):
        return decide("final", final)
    if answers := [*_answers(s, final=False), *([last] if last else [])]:
        return decide("answer", [*answers, first] if first else answers)
    if first:
        return decide("label", [first])
    if mentions := list(_mentions(s)):
        return decide("mention", mentions)
    refused = _REFUSAL.search(s)
    return Reading(None, "refusal" if refused else "none", "refused" if refused else "unparsed")
