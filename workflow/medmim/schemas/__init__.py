"""One module a table, so that a change of one table's columns makes only the stages anew that read or write it."""
