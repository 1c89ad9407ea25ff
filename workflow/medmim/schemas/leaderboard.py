"""Scores with their intervals."""

from medmim.column import INT, REAL, TEXT, Column

COLUMNS = (
    Column("model", TEXT, "name in the config, or chance, majority"),
    Column(
        "set",
        TEXT,
        "temporal, reasoning, comparison, coreference, rad, odir, a further held-out set, or the sums held_in, held_out",
    ),
    Column("ability", TEXT, "ability of the set; held_out or held_in for sums and held-out sets; further for sets in no sum"),
    Column("kind", TEXT, "closed or open"),
    Column("condition", TEXT, "plain or blind"),
    Column("metric", TEXT, "as in answers; *_minus_base, *_minus_blind: paired differences; unparsed_rate, refused_rate ..."),
    Column("value", REAL, "mean over items, 0 to 1 (differences -1 to 1)"),
    Column("ci_low", REAL, "2.5 % point of the bootstrap over patients; null where it has no meaning", True),
    Column("ci_high", REAL, "97.5 % point", True),
    Column("n", INT, "items"),
    Column("n_patients", INT, "distinct patients of the questions"),
)
