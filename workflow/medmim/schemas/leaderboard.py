"""Scores with their intervals."""

from medmim.tables.columns import INT, REAL, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("model", TEXT, "name in the config, or chance, majority"),
    Column("set", TEXT, "as in qa, or the sums held_in, held_out"),
    Column("ability", TEXT, "ability of the set; held_out or held_in for sums and held-out sets; further for sets in no sum"),
    Column("kind", TEXT, "closed or open"),
    Column("condition", TEXT, "as in predictions; plain for differences between conditions"),
    Column("part", TEXT, "all, or clean: the questions that share no patient and no image with a training question"),
    Column(
        "metric",
        TEXT,
        "as in answers; *_minus_base, *_minus_blind, *_minus_other_patient ...: paired differences; recall_A ...: of the"
        " questions whose gold is that letter, the share right; unparsed_rate, refused_rate, ambiguous_rate, not_asked_rate",
    ),
    Column("value", REAL, "mean over items, 0 to 1 (differences -1 to 1); of rotated, over each item's mean over its rotations"),
    Column("ci_low", REAL, "lower end of the 95 % interval, by bootstrap over patients; null where it has no meaning", True),
    Column("ci_high", REAL, "upper end", True),
    Column("n", INT, "items"),
    Column("n_patients", INT, "distinct patients of the questions"),
)
