"""A job's record with every field, for tests that need one of no particular job."""

from typing import Any

from medmim.provenance import engine_version, job_record


def complete_record(**fields: Any) -> job_record.Record:
    """A record of this checkout's versions; `fields` in place of the usual ones."""
    record: job_record.Record = {
        "format_version": job_record.RECORD_VERSION,
        "engine_version": engine_version.ENGINE_VERSION,
        "python": engine_version.PYTHON_VERSION,
        "program": "x.py",
        "command": [],
        "cfg": {},
        "options": {},
        "key": "0" * 64,
        "inputs": {},
        "outputs": {},
        "folders": [],
        "policies": {},
        "code": {},
        "git": {"commit": "", "clean": False},
        "machine": {"host": "vm"},
        "summary": "made",
        "start": "2026-01-01T00:00:00.000+00:00",
        "end": "2026-01-01T00:01:00.000+00:00",
    }
    return record | fields
