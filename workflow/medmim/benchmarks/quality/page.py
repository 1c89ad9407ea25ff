"""The audit as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment

from medmim.benchmarks.quality.faults import FAULTS, NEAR_COPY, SetAudit, Training, audit_files
from medmim.benchmarks.quality.pictures import measure_pictures
from medmim.benchmarks.quality.text_only import TextOnlyScores, score_text_only
from medmim.common.formatting import format_percent
from medmim.questions.copies import CopyIndex, SourcePair
from medmim.tables.images import ImageStore

MAX_EXAMPLES = 3
# What each fault is called, and why it matters, in words for a reader who doesn't know the code.
FAULT_MEANINGS = {
    "same_images_in_train": (
        "Same images in training",
        "A training question shows exactly these images. A right answer may be remembered, not seen.",
    ),
    "shares_image_with_train": (
        "An image in training",
        "At least one of the images was shown in training.",
    ),
    "shares_patient_with_train": (
        "A patient in training",
        "Other images of the same patient were shown in training. The set is not held out by patient.",
    ),
    NEAR_COPY: (
        "A near copy in training",
        "An image of training is the same picture mirrored, re-encoded, rescaled, slightly cropped or of another brightness, "
        "under another patient's id.",
    ),
    "duplicate_ids": ("Id given before", "Another question of this set has the same id: ids can't be used as keys."),
    "duplicate_records": ("Question given before", "The same images, question and answer again: it counts twice in every score."),
    "duplicate_options": (
        "Option text given twice",
        "Two letters say the same. A reply with the other letter is right by text and wrong by letter.",
    ),
    "gold_not_in_options": (
        "Answer is no option",
        "Letter and text of the answer are those of no option. No reply can be right.",
    ),
    "placeholder_mismatch": (
        "Placeholders don't fit",
        "The question shows more or fewer <image> placeholders than it has images.",
    ),
    "skipped_letters": ("A letter is skipped", "Options are lettered A, B, D: the letters don't count the options."),
}
LEAKS = (*FAULTS[:3], NEAR_COPY)

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Benchmark audit</title>
<style>
:root { --ink: #1c2430; --soft: #5d6878; --line: #dde2e9; --ground: #fff; --tile: #f5f7fa; --bar: #4a76b8;
  --leak: 196, 49, 38; --fault: 184, 112, 8; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa5b5; --line: #333c49; --ground: #14181e; --tile: #1c222b; --bar: #6d97d6;
    --leak: 236, 106, 94; --fault: 226, 164, 68; }
  a { color: #8fb4ee; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 72rem;
  margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .38rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .82rem; }
section { border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.3rem 1.3rem; margin: 1.6rem 0; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
ul { margin: 0; padding: 0; list-style: none; }
.wide { overflow-x: auto; }
.soft { color: var(--soft); }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
.set { overflow-wrap: anywhere; min-width: 13rem; font-size: .85rem; }
.leak, .fault { min-width: 8.5rem; }
.leak { color: rgb(var(--leak)); }
.fault { color: rgb(var(--fault)); }
.place { white-space: nowrap; }
.examples { min-width: 20rem; font-size: .88rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: .9rem 0 .2rem; }
.tile { background: var(--tile); border-radius: 8px; padding: .5rem .9rem; min-width: 6.2rem; }
.tile b { display: block; font-size: 1.25rem; }
.tile span { font-size: .8rem; color: var(--soft); }
.letters { display: grid; grid-template-columns: auto 1fr auto; gap: .25rem .7rem; max-width: 34rem; align-items: center;
  font-size: .9rem; }
.letters i { display: block; height: .8rem; border-radius: 3px; background: var(--bar); }
</style>
</head>
<body>
{% macro heads(names) %}{% for name in names %}<th class="n">{{ name }}</th>{% endfor %}{% endmacro %}
{% macro cells(values) %}{% for value in values %}<td class="n">{{ value }}</td>{% endfor %}{% endmacro %}
{% macro tinted(colour, count, of) %}
<td class="n" style="background: rgba(var(--{{ colour }}), {{ "%.2f" | format(0.45 * count / of) }})">{{ count }}</td>
{% endmacro %}
{% macro tile(value, label) %}<div class="tile"><b>{{ value }}</b><span>{{ label }}</span></div>{% endmacro %}
<h1>Benchmark audit</h1>
{% for part in parts %}
<p>{{ part.sets | length }}{{ " released" if part.origin == "release" }}
benchmark {{ "set" if part.sets | length == 1 else "sets" }} against
{{ "{:,}".format(part.train.questions) }} training questions of {{ "{:,}".format(part.train.patients | length) }} patients
({% for name in part.names %}<code>{{ name }}</code>{{ ", " if not loop.last }}{% endfor %}).</p>
{% endfor %}
<p class="soft">Training here means these files only: what a set shares with other training files is not seen.</p>
<div class="wide"><table>
<tr><th>Set</th>{{ heads(["Questions", "Closed"]) }}
{% for leak in leaks %}<th class="n">{{ meanings[leak][0] }}</th>{% endfor %}
{{ heads(["Other faults", "Patients", "Largest patient", "Chance", "Majority letter", "Constant", "Text only",
"Text only, within", "Metadata only, within"]) }}</tr>
{% for name, a, f in audits %}
<tr><td class="set"><a href="#s{{ loop.index }}">{{ name }}</a></td>{{ cells([f.records, f.closed]) }}
{% for leak in leaks %}
{% if leak in f %}{{ tinted("leak", f[leak], f.records) }}{% else %}{{ cells(["–"]) }}{% endif %}
{% endfor %}
{{ tinted("fault", a.faulty, f.records) }}
{{ cells([f.patients, percent(f.largest_patient.share) if f.largest_patient, percent(f.chance), percent(f.majority),
percent(f.constant), percent(f.text_only), percent(f.text_only_within), percent(f.metadata_only_within)]) }}</tr>
{% endfor %}
</table></div>
<p class="soft">Chance: guessing among the options listed. Majority letter: always answering the most frequent letter of the
set. Constant: the better of one letter and one text, always. Text only: a classifier that sees the words and no image, taught
by the training questions; within, by four fifths of the set itself. Metadata only: one that sees the number of images, their
size and their brightness, and not what they show. What either has beyond the constant answer, by more than
chance, is told by the words, or by the metadata. A model must beat them all. Other faults: questions with at least one fault
that is not a leak.</p>
{% if source_pairs is not none %}
<h2>Copies between sources</h2>
{% if source_pairs %}
<div class="wide"><table>
<tr><th>Source of the benchmark</th><th>Source of training</th>{{ heads(["Exact copies", "Near copies"]) }}</tr>
{% for pair in source_pairs %}
<tr><td>{{ pair.source }}</td><td>{{ pair.training_source }}</td>{{ cells([pair.exact, pair.near]) }}</tr>
{% endfor %}
</table></div>
{% endif %}
<p class="soft">{{ "Images of the benchmark" if source_pairs else "No image of the benchmark" }} that an image of training
repeats: exact, the same pixels; near, the same picture mirrored, re-encoded, rescaled, slightly cropped or of another
brightness, under another patient's id. Counted over all questions that were compared, before any was left out of training
for it.</p>
{% endif %}
{% if beside %}
<h2>Ours beside the release</h2>
<div class="wide"><table>
<tr><th>Set</th><th>Origin</th>{{ heads(["Questions", "Images", "Options", "Letters", "Words of an answer, closed", "open",
"Wordings", "Distinct 1-grams", "2-grams", "3-grams"]) }}</tr>
{% for split, set, origin, values in beside %}
<tr><td>{{ split }} {{ set }}</td><td>{{ origin }}</td>{{ cells(values) }}</tr>
{% endfor %}
</table></div>
<p class="soft">Means of images and options, medians of words. Wordings: distinct questions, their options not counted.</p>
{% endif %}
{% for name, a, f in audits %}
<section id="s{{ loop.index }}">
<h2>{{ name }}</h2>
<div class="tiles">
{{ tile(f.records, "questions") }}{{ tile(f.closed, "closed") }}{{ tile(f.open, "open") }}{{ tile(f.patients, "patients") }}
{% if f.largest_patient %}{{ tile(f.largest_patient.records, "of the largest, " ~ f.largest_patient.patient) }}{% endif %}
{{ tile(percent(f.chance), "chance") }}{{ tile(percent(f.majority), "majority letter") }}
</div>
{% if a.found %}
<h3>Found</h3>
<div class="wide"><table>
<tr><th>Fault</th>{{ heads(["Questions", "Share"]) }}<th>What it means</th><th>For example</th></tr>
{% for kind, title, meaning, hits, base in a.found %}
<tr><td class="{{ kind }}">{{ title }}</td>{{ cells([hits | length, percent((hits | length) / base)]) }}<td>{{ meaning }}</td>
<td class="examples"><ul>{% for e, twin in hits[:examples] %}
<li><code>{{ e.id }}</code> <span class="soft"><span class="place">{{ e.place }}</span>
{% if twin %}– as <span class="place">{{ "training " if kind == "leak" }}{{ twin.place }}</span>
{{ "of " ~ twin.file if kind == "leak" and several }}{% endif %}</span></li>
{% endfor %}</ul></td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if a.absent %}<p class="soft">Looked for and not found: {{ a.absent | join(", ") | lower }}.</p>{% endif %}
{% if f.letters %}
<h3>Letters of the right answers</h3>
<div class="letters">{% for letter, count in f.letters.items() %}
<b>{{ letter }}</b><i style="width: {{ "%.1f" | format(100 * count / (f.letters.values() | max)) }}%"></i>
<span>{{ count }} ({{ percent(count / f.closed) }})</span>
{% endfor %}</div>
{% endif %}
{% if a.tasks %}
<h3>Guessing, by task</h3>
<div class="wide"><table>
<tr><th>Task</th>{{ heads(["Closed", "Constant", "Text only, within", "Metadata only, within"]) }}</tr>
{% for task, t in a.tasks %}
<tr><td>{{ task }}</td>{{ cells([t.n, percent(t.constant), percent(t.within), percent(t.metadata)]) }}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if a.sources | length > 1 %}
<h3>By source</h3>
<div class="wide"><table>
<tr><th>Source</th>{{ heads(["Questions", "Closed", "Patients"]) }}
{% for leak in leaks if leak in f %}<th class="n">{{ meanings[leak][0] }}</th>{% endfor %}</tr>
{% for source, s in a.sources %}
<tr><td>{{ source }}</td>{{ cells([s.records, s.closed, s.patients]) }}
{% for leak in leaks if leak in s %}{{ cells([s[leak]]) }}{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
</section>
{% endfor %}
</body>
</html>
"""


@dataclass(frozen=True)
class AuditReport:
    """One audit: `origin` (ours, or release for the authors'), names of the training files, what they show, the benchmark's
    sets, and what the texts of each tell."""

    origin: str
    names: list[str]
    train: Training
    sets: dict[str, SetAudit]
    text_scores: dict[str, TextOnlyScores]

    @classmethod
    def from_files(
        cls,
        origin: str,
        training: Sequence[Path],
        benchmark: Sequence[Path],
        copies: CopyIndex | None = None,
        images: Sequence[Path] = (),
    ) -> "AuditReport":
        """Of files; `images`: tables that have the benchmark's pictures. Raises as `audit_files` does."""
        train, sets = audit_files(training, benchmark, copies)
        training_entries = [entry for entries in train.sets.values() for entry in entries]
        shown = {image for found in sets.values() for entry in found.closed_entries for image in entry.images}
        pictures = measure_pictures(ImageStore(images), sorted(shown)) if images else {}
        text_scores = score_text_only(training_entries, {name: found.entries for name, found in sets.items()}, pictures)
        return cls(origin, [path.name for path in training], train, sets, text_scores)


def _set_context(audit: SetAudit, figures: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of a set: faults found with their entries and the number they are a share of, and the rest."""
    bases = {
        "duplicate_options": figures["closed"],
        "gold_not_in_options": figures["closed"],
        "skipped_letters": figures["closed"],
    }
    faults = []
    leaked_ids: set[int] = set()
    for fault, hits in audit.where.items():
        # Each leak includes the one before: show first what is new in it.
        fresh = sorted(hits, key=lambda hit: id(hit[0]) in leaked_ids)
        if hits:
            faults.append(
                ("leak" if fault in LEAKS else "fault", *FAULT_MEANINGS[fault], fresh, bases.get(fault, figures["records"]))
            )
        if fault in LEAKS:
            leaked_ids |= {id(entry) for entry, _ in hits}
    return {
        "found": faults,
        "absent": [FAULT_MEANINGS[fault][0] for fault, hits in audit.where.items() if not hits],
        "faulty": len({id(e) for fault, hits in audit.where.items() if fault not in LEAKS for e, _ in hits}),
        "sources": [(source, part.compute_figures()) for source, part in audit.sources.items()],
    }


def _statistics_cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells of one set of one origin, from its rows of the statistics table."""
    values = {(r["statistic"], r["key"]): r["value"] for r in rows}

    def shares_of(statistic: str) -> list[tuple[str, float]]:
        return [(key, share) for (found, key), share in values.items() if found == statistic]

    def format_average(statistic: str) -> str:
        return f"{sum(int(key) * share for key, share in shares_of(statistic)):.2f}" if shares_of(statistic) else "–"

    def format_number(statistic: str, key: str) -> str:
        return f"{values[statistic, key]:,.0f}" if (statistic, key) in values else "–"

    return [
        f"{sum(n for _, n in shares_of('questions')):,.0f}",
        format_average("images"),
        format_average("options"),
        " ".join(f"{letter} {format_percent(share, 0)}" for letter, share in shares_of("letters")) or "–",
        *(format_number("answer_words", f"{kind} median") for kind in ("closed", "open")),
        format_number("wordings", ""),
        *(format_number("ngrams", n) for n in "123"),
    ]


def render_page(
    parts: Sequence[AuditReport], rows: Sequence[Mapping[str, Any]] = (), source_pairs: Sequence[SourcePair] | None = None
) -> str:
    """The HTML page of audits; `rows` of the statistics table are shown where there are two origins to compare.

    `source_pairs`: sources that share pictures; None where these were not compared.
    """
    set_contexts = [
        (
            name,
            _set_context(a, f) | {"tasks": [*part.text_scores[name].tasks.items()]},
            f | part.text_scores[name].compute_figures(),
        )
        for part in parts
        for name, a in part.sets.items()
        for f in [a.compute_figures()]
    ]
    sorted_rows = sorted(rows, key=lambda r: (r["split"], r["set"], r["origin"])) if len(parts) > 1 else []
    beside = [
        (*key, _statistics_cells([*found])) for key, found in groupby(sorted_rows, lambda r: (r["split"], r["set"], r["origin"]))
    ]
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE)
    return template.render(
        parts=parts, audits=set_contexts, beside=beside, leaks=LEAKS, meanings=FAULT_MEANINGS, examples=MAX_EXAMPLES,
        percent=format_percent, source_pairs=source_pairs, several=sum(len(part.names) for part in parts) > 1,
    )  # fmt: skip
