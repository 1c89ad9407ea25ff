"""Statistics of question sets, ours and the release's alike: a row is one figure of one set."""

from medmim.tables.columns import INT, REAL, TEXT, Column

VERSION = 2
COLUMNS = (
    Column("origin", TEXT, "ours, or release for the authors' files"),
    Column("split", TEXT, "train or benchmark"),
    Column("set", TEXT, "the set; a released file's by its name, or that name where it says none"),
    Column(
        "statistic",
        TEXT,
        "questions (value: how many); images, options, letters (share of questions with the key's images; of closed ones with"
        " its options, its gold letter); answer_words (words of an answer); wordings (distinct texts of questions, options"
        " not counted); ngrams (distinct n-grams of words in them); guess (share of closed questions answered right without"
        " looking), guess_task (the same of one task); fault (questions that have it)",
    ),
    Column(
        "key",
        TEXT,
        "questions: closed or open; images, options: a number; letters: a letter; answer_words: mean, median or longest, after"
        " closed or open; ngrams: n; guess: constant, text_only, text_only_within or"
        " metadata_only_within (medmim.benchmarks.quality.text_only); guess_task: one of these, a blank and the task;"
        " fault: its name in medmim.benchmarks.quality.faults;"
        " else empty",
    ),
    Column("value", REAL, "the figure"),
    Column("n", INT, "questions it rests on; of ngrams, all n-grams, repeated ones too"),
)
