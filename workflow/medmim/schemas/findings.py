"""Facts that a source states."""

from medmim.tables.columns import INT, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("finding_id", TEXT, "'<source>/<16 hex digits of the content>'"),
    Column("source", TEXT, "name of the source"),
    Column("patient_id", TEXT, "as in images"),
    Column("study_id", TEXT, "as in images; empty for a fact of the patient"),
    Column("image_id", TEXT, "as in images; empty for a fact of the study or patient"),
    Column("name", TEXT, "what is stated; the names of each source stand in its adapter"),
    Column("value", TEXT, "the statement, as the source words it"),
    Column("origin_file", TEXT, "table or file below the source's folder that states it"),
    Column("origin_row", INT, "row in that table counted from 1 without its header; record number in a JSON file"),
)
