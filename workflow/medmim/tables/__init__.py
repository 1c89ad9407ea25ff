"""The contract between stages: columns, reading and writing of tables, the images table, data-use policies."""
