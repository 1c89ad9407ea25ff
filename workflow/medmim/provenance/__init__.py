"""The rerun and audit engine: records, cache, staleness, audit. It knows no stage."""
