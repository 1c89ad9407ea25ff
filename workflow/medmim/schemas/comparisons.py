"""Every pair of models on every set: accuracy on closed questions as asked. Holm's family: all pairs on one set and part."""

from medmim.tables.columns import INT, REAL, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("set", TEXT, "as in leaderboard"),
    Column("part", TEXT, "as in leaderboard"),
    Column("model", TEXT, "name in the config"),
    Column("other", TEXT, "the model it is compared with"),
    Column("relation", TEXT, "base where model was tuned from other; else empty"),
    Column("value", REAL, "accuracy of model less that of other, on the same questions"),
    Column("ci_low", REAL, "lower end of the 95 % interval, by bootstrap over patients; null where it has no meaning", True),
    Column("ci_high", REAL, "upper end", True),
    Column("p", REAL, "two-sided p of no difference, of the same resamples; null where they tell nothing", True),
    Column("p_holm", REAL, "the same, adjusted by Holm for all pairs on this set and part", True),
    Column(
        "p_mcnemar",
        REAL,
        "McNemar's exact p; null where a patient has two of the questions, which are not independent",
        True,
    ),
    Column("p_mcnemar_holm", REAL, "the same, adjusted by Holm", True),
    Column("only_model", INT, "questions that only model has right"),
    Column("only_other", INT, "questions that only other has right"),
    Column("n", INT, "items"),
    Column("n_patients", INT, "distinct patients of the questions"),
)
