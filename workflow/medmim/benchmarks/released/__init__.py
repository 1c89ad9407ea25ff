"""The authors' released questions: reading, conversion to the qa table, download, and the audit of a benchmark."""
