r"""Which option a reply names: an anchored grammar over the item's own options that never guesses.

The reply is normalised (NFKC, case, markdown, quotes, dashes, full-width punctuation), its answer phrases put into English where
they are another language's, and lexed: each option text that stands in it between word boundaries, and each letter in a form
that can't be a word, becomes one symbol. Over these claims are sought, and the strongest kind present decides:

1. final    "Final answer: B", "Therefore, the answer is B", "\boxed{B}", "<answer>B</answer>"
2. answer   "The answer is (C)", "Answer: B", "I choose B", "B is correct", "not A but B", or an option alone on the last line
3. label    the reply begins with "B.", "(B)", "B: text", "option B" ..., or its first sentence is an option's text
4. mention  an option's exact text, "option B", or a line "B: ...", anywhere, asserted and not negated

All claims of that kind must name one option, else the reply is ambiguous; so it is where a letter and the text bound to it
disagree. A bare letter inside a sentence is never read ("A benign mass", "hepatitis B"), a text as short or common as "no" or
"2" only where it stands for the answer, and nothing is inferred from what a reply excludes. Option texts of scripts that put no
spaces between words are read only where punctuation sets them off.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from medmim.questions.prompt import LETTERS
from medmim.scoring.languages import translate_answer_phrases

Status = Literal["ok", "ambiguous", "unparsed", "refused"]


@dataclass(frozen=True)
class Reading:
    """What a reply says: index of the option (None unless status is ok), the rule that decided, and the status.

    letter: the one at which that option was shown, or empty.
    """

    index: int | None
    rule: str
    status: Status
    letter: str = ""


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
        **dict.fromkeys("。।", ". "),
        **dict.fromkeys("、،", ", "),
        **dict.fromkeys("*~`$\u200b\u200c\u200d\u2060\ufe0f\ufeff\u00ad", ""),
        **dict.fromkeys(map(chr, range(_T0, _END0 + 1)), ""),
        **dict.fromkeys("✓✔✅☑", " correct "),
        **dict.fromkeys("✗✘❌✖", " incorrect "),
        **{"؟": "?", "؛": ";", "→": "->", "_": " "},
    }
)
_EDGE = " \n.,;:!?\"'"
_THINKING = re.compile(r"^.*[<◁]/(?:think(?:ing)?|reasoning)[>▷]|^[\W_]*?[<◁](?:think(?:ing)?|reasoning)[>▷].*", re.S)
_CUT = re.compile(r"(?s)(^\W*[A-Z].*[a-z]\sa)\s*$")  # "The answer is a", where the limit of tokens cut the rest off
_WRAPPED = re.compile(r"\\boxed\s*\{\s*((?:[^{}]|\{[^{}]*\})*)\}|<answer>([^<]*)</answer>")
_TOKENS = re.compile(r"</?s>|<\|\w+\|>|\[/?inst\]|\\[,; ]|\\(?:text|math)\w*\s*(?=\{)|(?:^|(?<=\n))[\W_]*assistant\s*[:：]")


_STAR = re.compile(r"(?<=\d)\*(?![^\W_])")
_QUOTED = re.compile(r"(?<!\w)'(\w)'(?!\w)")


def normalise_text(text: str) -> str:
    """The text in lower case and one set of punctuation marks, without markdown, lines trimmed and empty ones dropped."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if text.count("*") % 2:
        text = _STAR.sub("star", text)  # T2* is no T2
    text = _QUOTED.sub(r'"\1"', text.translate(_MARKS))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


_COMMON = frozenset({"yes", "no", "none", "true", "false", "not", "nothing", "all", "both", "neither"})


@dataclass(frozen=True)
class _OptionText:
    """An option's text: what of it must stand in a reply, which is all but edge punctuation and a leading article."""

    core: str
    weak: bool  # too short or common to be read in running prose
    definite: bool  # "the second image", of which "a second image" does not speak


@lru_cache(maxsize=1 << 14)
def _parse_option(option: str) -> _OptionText:
    whole = normalise_text(option).replace("\n", " ").strip(_EDGE)
    core = re.sub(r"^(?:the|an?) (?=\S)", "", whole)
    weak = core in _COMMON or len(core) < 2 or not re.search(r"[^\W\d]", core)
    return _OptionText(core, weak, whole.startswith("the "))


@dataclass(frozen=True)
class _PreparedOptions:
    """An item's options. Equal texts are one option: `canon` gives the first index with the same text."""

    canon: tuple[int, ...]
    texts: tuple[tuple[_OptionText, int], ...]
    letters: dict[str, int]  # texts that are themselves a letter
    heads: dict[str, int]  # first words of texts that are alike but for these
    tails: dict[str, int]  # last words


@lru_cache(maxsize=1 << 14)
def _prepare_options(options: tuple[str, ...]) -> _PreparedOptions:
    if not 0 < len(options) <= len(LETTERS):
        raise ValueError(f"{len(options)} options: expected 1 to {len(LETTERS)}")
    texts = [_parse_option(option) for option in options]
    first_index: dict[str, int] = {}
    canon = tuple(first_index.setdefault(text.core, i) if text.core else i for i, text in enumerate(texts))
    letters = {core: i for core, i in first_index.items() if len(core) == 1 and "a" <= core <= "z"}
    distinct_texts = tuple((texts[i], i) for core, i in first_index.items() if core not in letters)
    return _PreparedOptions(
        canon, distinct_texts, letters, _find_differing_words(first_index, 0), _find_differing_words(first_index, -1)
    )


def _find_differing_words(texts: dict[str, int], place: int) -> dict[str, int]:
    """First or last words (place 0 or -1) of texts that are alike but for that word, with their option."""
    groups: dict[tuple[str, ...], dict[str, int]] = {}
    for core, index in texts.items():
        if len(words := core.split()) > 1:
            groups.setdefault(tuple(words[1:] if place == 0 else words[:-1]), {})[words[place]] = index
    return {word: index for group in groups.values() if len(group) > 1 for word, index in group.items()}


def has_duplicate_options(options: Sequence[str]) -> bool:
    """Whether two options have the same text, case and edge punctuation aside: such an item is credited by text."""
    return len(set(_prepare_options(tuple(options)).canon)) < len(options)


def is_same_option(options: Sequence[str], one: int, other: int) -> bool:
    """Whether two indices name the same option text."""
    canon = _prepare_options(tuple(options)).canon
    return canon[one] == canon[other]


# Lexing

_ORGANISM = r"(?!\s?\.\s(?:coli|diff|difficile|albicans|aureus|aeruginosa|pneumoniae|faecalis|fumigatus|pylori)\b)"
_FITS = r"(?:best\s)?(?:describes|fits|matches|represents|explains|characterizes|reflects)"
_ON = (  # the sentence goes on
    r"\s(?:is|isn't|are|was|would|cannot|can't|seems|shows|has|looks|appears|and|or|but|which|given|as)\b"
    rf"|\s(?:{_FITS}|correct|incorrect|it is)\b"
)
_LETTER = re.compile(
    r"(?:(?<=\boption )|(?<=\bchoice )|(?<=\bletter ))(?P<named>[b-hj-z])(?![\w'\-])|"
    rf"(?<![\w'\-])(?<!\w\.)(?<!\w\w/)(?P<letter>[a-z])(?![\w'\-]){_ORGANISM}"
    r"(?=(?P<mark>\s?[)\]}\">:;!?|=]|\s?\.(?!\w)|\s*(?:$|\n)|\s\((?:\d+\s?%|confiden))|(?P<comma>\s?[,+]|\s[/&]|\s-+>?\s)"
    r"|(?P<slash>(?:[/&][a-z])+\s*(?:$|[.,;:!?)\n]))"
    rf"|(?P<word>\s(?:because|since|due|based|not|rather|instead)\b|{_ON})"
    rf"|(?P<text>\s?[\"'(]*{_TW}))"
)
_NOT_I = re.compile(rf"\s?,?\s(?:is|isn't|but|not|rather|because|since|{_FITS})\b|\s?[,\-]+>?\s?[\"'(]*{_TW}|\s?[/&+]")


def _is_whole_word(s: str, start: int, end: int) -> bool:
    """Whether s[start:end] is no part of a longer word, number or hyphenated compound ("T1-weighted" is still T1)."""
    joins = "-/" if s[start].isalpha() else "-/.,"
    if start and (s[start - 1].isalnum() or (start > 1 and s[start - 1] in joins and s[start - 2].isalnum())):
        return False
    joins = "-/" if s[end - 1].isalpha() else "-/.,"
    if end < len(s) and (s[end].isalnum() or (s[end] in joins and s[end + 1 : end + 2].isalnum())):
        return s.startswith("-weighted", end)
    return True


_EITHER = r"(?:\s?(?:,|/|&|\band\b|\bor\b|\bnor\b|\bto\b)\s?(?:the\s)?)+"
_HEAD = re.compile(rf"(?<![\w\-])([\w\-]+){_EITHER}$")
_TAIL = re.compile(rf"{_EITHER}([\w\-]+)")
_ANOTHER = re.compile(r"\b(?:an?|another|each|every)\s$")
_UNIT = re.compile(r"\d\s?$")
_SET_OFF = re.compile(r"\s?[.,;:!?)\]\"'\n]|\s-|\s*$")


def _find_elided_options(flat: str, at: int, end: int, options: _PreparedOptions) -> Iterator[tuple[int, int, int]]:
    """Options of which a list leaves out what they share with the one at flat[at:end]: "first and second image"."""
    start = at
    while options.heads and (match := _HEAD.search(flat, max(0, start - 40), start)) and match[1] in options.heads:
        start = match.start()
        yield start, -match.end(1), _T0 + options.heads[match[1]]
    while options.tails and (match := _TAIL.match(flat, end)) and match[1] in options.tails:
        end = match.end()
        yield match.start(1), -end, _T0 + options.tails[match[1]]


def _replace_option_texts(s: str, options: _PreparedOptions) -> str:
    """The reply with a symbol in place of each option's text."""
    flat, spans = s.replace("\n", " "), []
    for text, index in options.texts:
        at = flat.find(text.core)
        while at >= 0:
            end = at + len(text.core)
            prose = text.core in _COMMON and not _SET_OFF.match(s, end)  # "no evidence" is no answer "no"
            other = (text.definite and _ANOTHER.search(flat, max(0, at - 10), at)) or (
                len(text.core) < 4 and _UNIT.search(flat, max(0, at - 2), at)
            )
            if _is_whole_word(flat, at, end) and not prose and not other:
                spans.append((at, -end, (_W0 if text.weak else _T0) + index))
                spans += _find_elided_options(flat, at, end, options)
            at = flat.find(text.core, at + 1)
    out, at = [], 0
    for start, minus_end, symbol in sorted(spans):
        if -minus_end <= at:
            continue  # inside a longer option's text
        out += [s[at : max(start, at)], chr(symbol)]  # of texts that overlap both are named
        at = -minus_end
    return "".join(out) + s[at:]


def _replace_letters(s: str, count: int) -> str:
    """The same with a symbol in place of each letter that may be one of so many options'."""

    def replace_letter(match: re.Match[str]) -> str:
        index = ord(match["letter"] or match["named"]) - ord("a")
        if match["slash"] and not all("a" <= c < chr(ord("a") + count) for c in re.findall("[a-z]", match["slash"])):
            return match.group()  # "b/l"
        # where "a" and "i" may be article and pronoun: "a <text>", "i, as an ai", "i would"
        is_word = match["letter"] == "a" and match["text"]
        if match["letter"] == "i" and match["mark"] is None:
            is_word = not _NOT_I.match(match.string, match.end())
        return match.group() if is_word or index >= count else chr(_L0 + index)

    return _LETTER.sub(replace_letter, s)


# Claims

_NOUN = r"(?:option|opt\.?|choice|letter|alternative|statement)"
_ARTICLE = r"(?:(?:the|an?)\s)?"
_LABEL = rf"(?:(?:{_NOUN}|answer)\s?[:#]?\s?)?[(\[{{\"'<]{{0,3}}\s?{_L}(?:\s?[)\]}}\"'>]{{1,3}})?"
_TEXT = rf"{_ARTICLE}[\"'(\[]{{0,3}}{_ARTICLE}{_TW}+[\"')\]]{{0,3}}"
_THAT = r"(?:(?:because |since )?(?:it is|it's|this is|that is|which is|i\.e\.,?|namely|meaning)\s)?"
_STOP = r"(?=\s*$|\s*[.,;!?)\n])"

# Atomic groups keep these patterns linear. Possessive quantifiers would do the same, but match wrongly before Python 3.11.5.


def _build_list_pattern(after_full_stop: str) -> str:
    """One option or a list: a letter with the text bound to it, or a text with its letter in brackets.

    after_full_stop: what must follow a text for it to be bound to the letter in "B. text".
    """
    other = rf"\s?[:=]\s?[\"'(\[]*{_L}[\"')\]]*{_STOP}"
    bound = rf"(?:\s?[:),;\-(\]=>]*\s?{_THAT}{_TEXT}|\s?\.\s?{_THAT}{_TEXT}{after_full_stop}|{other})"
    named = rf"(?>{_LABEL}{bound}?|{_TEXT}(?:\s?[(\[]\s?(?:{_NOUN}\s)?{_L}\s?[)\]])?)"
    comma = r"(?:\s?(?:[,/&+]|\s(?:and|or)\b|,\s?(?:and|or)\b|and/or)\s?(?:also\s)?)"
    stop = rf"(?:\s?(?:;|\.(?=[^\S\n]?(?:{_LABEL}|{_TEXT}{_STOP})))\s?(?={named}(?!{_ON})))"  # "B; A is wrong" is no list
    return rf"(?P<claim>(?:(?:both|either)\s(?={named}{comma}))?{named}(?>(?:(?:{comma}|{stop}){named}){{0,25}}))"


_LIST, _STRICT = _build_list_pattern(_STOP), _build_list_pattern("")
_ONE = re.sub(r"\(\?P<claim>", "(?:", _LIST)
_LEAD = r"(?>(?:[-+>#=]+\s?|\d+[.)]\s)*)"
_BE = (
    r"(?:is (?:likely|going) to be|is|are|was|be|would be|will be|should be|must be|has to be|could be|may be|might be"
    r"|seems to be|appears to be)"
)
_GOOD = r"(?:correct|right|best|true|proper|appropriate|accurate|suitable|likely|probable)"
_SURE = r"(?:(?:therefore|thus|most likely|likely|probably|clearly|definitely|indeed|maybe|perhaps|possibly),?\s)?"
_HENCE = r"(?:so|therefore|thus|hence|in conclusion|to conclude|finally|in summary|overall|ultimately)"
_PHRASE = re.compile(
    rf"(?P<final>\b(?:{_HENCE},?\s(?:i (?:think|believe)\s(?:that\s)?)?(?:the |my )?(?:(?:most )?{_GOOD}\s)*|final\s))?"
    r"\b(?:answer|ans\.?|option|choice|response|selection|diagnosis|conclusion|letter|guess|pick|prediction|result|output|verdict"
    r"|solution|key|correct"
    rf"|{_GOOD}\sone)"
    r"(?:,?\s(?:to|for|of|here|that|which|i|we|in|therefore|then)\b[^.,:;!?\n]{0,40}?,?)?"
    rf"[\"']?\s?(?:{_BE}(?P<not>\snot|n't)?\s?:?|:|[=\-]+>?|\.\.\.|(?<=ans\.))\s*(?:that\s)?{_SURE}{_LIST}"
)
_ASSERTED = (
    r"(?:therefore|thus|hence|so)[,:]?",
    rf"(?:it|this|that)(?:'s|\s{_BE})",
    r"(?:this|that|which) leaves",
    r"corresponds? to",
    r"(?:i|we)(?:'d|\swould)? (?:think|believe|guess)",
    r"(?:go|going) with",
    r"(?:no|(?:no,?\s)?wait|actually|correction)[,.:]",
)
_CHOOSE = re.compile(
    r"(?:\b(?:i|we)(?:'d|'ll|\swould|\swill)?(?P<not>\snot|n't)?(?:\shave to)?"
    r"\s(?:choose|chose|pick|picked|select|selected|go with|say|opt for|answer)\s"
    rf"|(?:^|[.:;\n]\s?){_LEAD}(?:please\s)?(?:choose|choosing|select|selecting|pick|picking)\s(?:answer\s)?"
    rf"|\b(?:{'|'.join(_ASSERTED)})\s(?P<nor>not\s)?{_SURE}(?={_LABEL}\s*(?:$|[.,;!?\n])|{_LABEL}[:)]\s?{_TEXT})){_LIST}"
)
_POST = re.compile(
    r"(?:^|[.,;:!?\n(]\s?|\b(?:so|that|think|believe|thus|therefore|hence|and|but|say|while|whereas|only)\s)"
    rf"{_LEAD}{_LIST}\s(?:{_BE}|seems|appears|looks)(?P<not>\snot|n't)?"
    rf"\s(?:to be\s)?(?:the\s|an?\s)?(?:most\s|more\s|only\s)?(?:{_GOOD}|(?:final\s)?answer)\b"
)
_BUT = re.compile(
    rf"\b(?:not|isn't)\s{_ONE}\s?[,;.]?\s?(?:but|rather|instead)\s(?:rather\s|instead\s)?(?:it is\s|it's\s)?{_LIST}"
)
_FIT = re.compile(rf"(?:^|[.,;:!?\n]\s?|\b(?:so|that|and|but)\s){_LEAD}{_LIST}\s(?:{_FITS}|it is)\b")
_VERDICT = re.compile(rf"(?:^|(?<=\n)){_LEAD}{_LIST}\s?[:\-]*\s?(?:correct|true)\b")
_OPENER = r"(?:(?:sure|certainly|of course|okay|ok|yes|absolutely)\s?[,.!:]\s?)?"
_START = re.compile(rf"{_LEAD}{_OPENER}{_SURE}{_STRICT}(?P<after>.*)", re.S)
_NEXT = re.compile(rf"(?:^|[.;,!?\n])\s?{_LEAD}(?:{_NOUN}\s)?[(\[]?(?P<letter>{_L})[)\]]?\s?[:)\-]")
_ALONE = re.compile(rf"{_LEAD}{_STRICT}[\s.,;:!?)\]\"'>]*$")
_ITEM = rf"{_LABEL}(?:\s?[:),;.\-]*\s?{_TEXT})?"
_LINE = re.compile(
    rf"(?:(?<=\n)|^){_LEAD}(?P<claim>{_ITEM}(?>(?:\s?(?:[,/&]|and\b|or\b|,\s?and\b|,\s?or\b)\s?{_ITEM})*))(?!{_ON})"
)
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
    r"see|find|observe|detect|identify|include|suggest|support|indicate|demonstrate|reveal|visible|"
    r"necessarily|really|definitely|clearly|correct|show|have|appear|represent|for|it|is|that|been|as|by|just|simply)\s)"
)
_NEGATED = re.compile(
    r"(?:\b(?:not|no longer|no more|no|non|nothing|never|neither|nor|without|rather than|instead of|except|exclud(?:ing|es?|ed)|"
    r"rul(?:ed?|es|ing) out|unlike|less likely|unlikely|free of|absence of|lack of|lacks?|negative for|as opposed to|against|"
    r"cannot|whether|if)"
    rf"|n't)[\s\-]{_FILLER}{{0,4}}[\"'(\[]*(?:{_X}[\"')\]]*\s?(?:,\s?(?:or|nor|and)?|or|nor|and)\s{_FILLER}{{0,3}}[\"'(\[]*){{0,9}}$"
)
_ABSENT = re.compile(  # "no mass is seen in the second image", "if it were worse"
    r"(?:\b(?:no|not|without|nothing|never)|n't)(?:\s[\w\-']+){1,6}\s(?:in|on|at|within|from|between)\s(?:the\s)?[\"'(]*$"
    r"|\b(?:if|whether|unless)\b[^.,;:!?\n]*$"
)
_FALSE = r"(?:incorrect|wrong|false|excluded|ruled out|unlikely|absent|less likely|eliminated)"
_DENIED = re.compile(
    r"[\"')\]]*,?\s(?:"
    r"(?:does|do|did|has|have|had|is|are|was|were|can|could|would|should|will|might|may|must)(?:\snot|n't)\b|cannot\b|can't\b|lacks?\b|"
    r"(?:shows?|has|have|had|contains?|demonstrates?|displays?|reveals?)\sno\b|"
    r"would\s(?:show|have|appear|mean|require|imply|need|look|present)\b|"
    rf"(?:(?:is|are|was|were|seems|looks|(?:can|could|would|has) be(?:en)?)\s)?(?:also\s)?{_FALSE}\b)"
)
_WRONG = re.compile(rf"[\"')\]]*,?\s(?:(?:{_BE}|seems|can be)\s(?:not|{_FALSE})\b|isn't\b|cannot be\b|can't be\b)")
_ABLE = (
    r"(?:interpret|analy[sz]e|view|see (?:the|any|an|your)? ?(?:images?|scans?|pictures?|x-?rays?)|"
    r"determine|provide|answer|assist|help|diagnose|comment|access|tell|say|offer|give|identify|"
    r"assess|evaluate|make|process|choose|select|comply|conclude|read|open|decide|examine|respond|know|be|do)\b"
)
_UNABLE = re.compile(
    r"\b(?:i|we)(?: am| was| are|'m|'re)? ?(?:cannot|can't|can not|could not|couldn't|unable to|not able to|won't|will not|"
    rf"must decline to|decline to|refuse to|not (?:qualified|permitted|allowed) to)(?:\s[a-z]+){{0,2}}?\s{_ABLE}|"
    r"\b(?:i|we) (?:do not|don't) (?:know|have|see any images?)\b|\b(?:i am|i'm|we are|we're) not (?:sure|certain)\b|"
    rf"(?:^|\n|[.;] )[-+>#\s]*(?:unable to|cannot|can't|not able to) {_ABLE}|"
    r"\b(?:impossible|not possible) to (?:determine|tell|say|answer|know)\b|"
    r"\b(?:cannot|can't|can not|could not) be (?:determined|answered|said|concluded|decided)\b|"
    r"\bno images? (?:(?:is|are|was|were|has been|have been) )?(?:provided|attached|given|available|visible|included|supplied)\b|"
    r"\b(?:please|kindly) (?:provide|upload|attach|share|consult)\b|\b(?:insufficient|not enough) information\b"
)
_SORRY = re.compile(r"\bsorry\b|\bi apologi[sz]e\b|\b(?:as|i am|i'm)(?: just| only)? an? (?:ai|artificial|language|large)\b")
_BREAK = re.compile(r"[.!?](?=\s|$)|\n")
_CONTEXT_LENGTH = 300  # characters around a claim that may take it back


def _matches_before(pattern: re.Pattern[str], s: str, at: int) -> bool:
    return pattern.search(s, max(0, at - _CONTEXT_LENGTH), at) is not None


def _find_sentence(s: str, at: int) -> str:
    """The sentence around a place, with the mark that ends it."""
    start = max((m.end() for m in _BREAK.finditer(s, max(0, at - _CONTEXT_LENGTH), at)), default=max(0, at - _CONTEXT_LENGTH))
    end = _BREAK.search(s, at, at + _CONTEXT_LENGTH)
    return s[start : end.end() if end else at + _CONTEXT_LENGTH]


def _find_answer_claims(s: str, *, final: bool) -> Iterator[str]:
    """Where the reply says what the answer is; only what it calls final, or all."""
    for pattern in (_PHRASE,) if final else (_PHRASE, _CHOOSE, _POST, _BUT, _FIT, _VERDICT):
        for match in pattern.finditer(s):
            groups = match.groupdict()
            if groups.get("not") or groups.get("nor") or (final and not groups["final"]):
                continue
            if not _matches_before(_DOUBT, s, match.start()) and not _starts_enumeration(s, match):
                yield match["claim"]


def _starts_enumeration(s: str, match: re.Match[str]) -> bool:
    """Whether a claim is the first of the lines of an enumeration ("let us look at each option:", "A: ...", "B: ...")."""
    end = s.find("\n", match.start("claim"))
    if end < 0 or "\n" not in s[match.start() : match.start("claim")]:
        return False
    next_line = _LINE.match(s, end + 1)
    return next_line is not None and not set(re.findall(_X, next_line["claim"])) & set(re.findall(_X, match["claim"]))


def _find_end_claims(s: str) -> tuple[str | None, str | None]:
    """The option a reply begins with, set off by its form or punctuation, and the option alone on its last line.

    Lines of an enumeration ("A: ...", "B: ...") are neither.
    """
    forms: list[tuple[str, bool, bool]] = []  # by line: its label, whether with a text, whether nothing else
    for line in s.split("\n"):
        alone, label = _ALONE.match(line), _LINE.match(line)
        claim = alone["claim"] if alone else label["claim"] if label else ""
        forms.append((claim, bool(re.search(_TW, claim)), alone is not None))

    def is_enumerated(line: int) -> bool:
        return any(
            claim and claim != forms[line][0] and form == forms[line][1:] for claim, *rest in forms if (form := tuple(rest))
        )

    last = forms[-1][0] if forms[-1][2] and not is_enumerated(-1) else None
    match = _START.match(s)
    if match is None or (forms[0][0] and is_enumerated(0)):
        return None, last
    claim, after = match["claim"], match["after"]
    letters = set(re.findall(_L, claim))
    if len(letters) == 1 and any(other["letter"] not in letters for other in _NEXT.finditer(after)):
        return None, last  # "Option A: ... Option B: ..."
    if letters:
        return None if re.match(_ON, after) or _WRONG.match(after) else claim, last
    set_off = r"\s?[.!\n]|$" if re.search(_T, claim) else r"\s?[.,;:!?\n]|\s-|$"
    return claim if re.match(set_off, after) else None, last


def _find_mentions(s: str) -> Iterator[str]:
    """Options named anywhere and asserted there."""
    for pattern in (_MENTION, _LINE):
        for match in pattern.finditer(s):
            start, end = match.span("claim")
            if any(_matches_before(pattern, s, start) for pattern in (_NEGATED, _ABSENT, _DOUBT)) or _DENIED.match(s, end):
                continue
            sentence = _find_sentence(s, start)
            if not sentence.endswith("?") and not _UNABLE.search(sentence):
                line = s[end : end + _CONTEXT_LENGTH].partition("\n")[0] if pattern is _LINE else ""
                yield match["claim"] + "".join(other["letter"] for other in _NEXT.finditer(line))  # "A: 10 %, B: 90 %"


@lru_cache(maxsize=1 << 16)
def _normalise_reply(reply: str) -> str:
    """The reply as it is lexed: without what a model thinks before it answers, normalised, its answer phrases in English."""
    text = _TOKENS.sub("", _THINKING.sub("", _CUT.sub(r"\1n", reply).casefold()))
    return translate_answer_phrases(
        normalise_text(_WRAPPED.sub(lambda m: f"\nfinal answer: {(m[1] or m[2] or '').strip('{} ')}\n", text))
    )


@lru_cache(maxsize=1 << 16)
def _find_decisive_claims(texts: str, count: int) -> tuple[str, str]:
    """The rule that decides what a reply names, texts being symbols, and the symbols that it names; none where nothing is named.

    Replies repeat each other in all but the option's text, so most are found in the cache.
    """
    s = _replace_letters(texts, count)
    if not s:
        return "empty", ""
    first, last = _find_end_claims(s)
    if claims := list(_find_answer_claims(s, final=True)):
        rule = "final"
    elif claims := [*_find_answer_claims(s, final=False), *([last] if last else [])]:
        rule = "answer"
        claims += [first] if first and len(set(re.findall(_X, first))) == 1 else []  # a list of the options is an echo
    elif first:
        rule, claims = "label", [first]
    elif claims := list(_find_mentions(s)):
        rule = "mention"
    else:
        rule = "refusal" if _UNABLE.search(s) or _SORRY.search(s) else "none"
    return rule, "".join(re.findall(_X, "".join(claims)))


def parse_reply(reply: str, options: Sequence[str], rotation: int = 0) -> Reading:
    """Read which of an item's options (1 to 26 texts, lettered A, B, ...) a reply names.

    rotation: the letter at place i stood at option (i + rotation) mod their number when the model was asked; `index` is the
    option's place in `options` all the same. Where options share a text, the text alone gives the first of them, a letter the one
    it says. Raises ValueError for no option or more than 26.
    """
    prepared = _prepare_options(tuple(options))
    count = len(prepared.canon)
    rule, claimed_symbols = _find_decisive_claims(_replace_option_texts(_normalise_reply(reply), prepared), count)
    if not claimed_symbols:
        return Reading(None, rule, "refused" if rule == "refusal" else "unparsed")
    symbols = [ord(c) for c in claimed_symbols]
    letters = [c - _L0 for c in symbols if c >= _L0]
    named = {prepared.canon[(i + rotation) % count] for i in letters}
    named |= {c - (_W0 if c >= _W0 else _T0) for c in symbols if c < _L0}
    if prepared.letters:
        named |= {prepared.letters[text] for i in letters if (text := LETTERS[i].lower()) in prepared.letters}
    if len(named) > 1:
        return Reading(None, rule, "ambiguous")
    index = (letters[0] + rotation) % count if letters else named.pop()
    return Reading(index, rule, "ok", LETTERS[(index - rotation) % count])
