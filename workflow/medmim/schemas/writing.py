"""What a language model wrote for questions, what became of it, and what it cost."""

from medmim.tables.columns import INT, REAL, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("template", TEXT, "qa_id of the question of templates that was to be written"),
    Column("form", TEXT, "rewrite: in other words; open: an open question from the same findings"),
    Column("attempt", INT, "1 for the first try"),
    Column("role", TEXT, "generator or reviewer"),
    Column("request", TEXT, "sha256 of the whole request; the reply is kept under it"),
    Column("model", TEXT, "name of the model as the service told it; empty where there is no reply"),
    Column("finish_reason", TEXT, "why the reply ended, as the service told it; empty where there is no reply"),
    Column("prompt_tokens", INT, "tokens sent, as the service counted them; where it did not, at most so many"),
    Column("completion_tokens", INT, "tokens received, likewise"),
    Column("usd", REAL, "price of both, in US dollars, by the config's prices"),
    Column("outcome", TEXT, "accepted or rejected"),
    Column("reason", TEXT, "why it was rejected, for a person; empty where accepted"),
    Column("qa_id", TEXT, "the question that was made; empty where none was"),
)
