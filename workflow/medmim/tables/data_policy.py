"""Rules of use, which travel with the data: the licences an artifact's content came under, and the sources whose owners forbid
passing it on.

A job's artifacts are under the rules of all that it read. They stand in every table's own metadata, `licence` and `credentialed`,
and are read from there, so that they are part of what an artifact's content is: whoever holds a file holds its rules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

LICENCE, CREDENTIALED = "licence", "credentialed"
SEPARATOR = "; "


@dataclass(frozen=True)
class Rules:
    """What holds for an artifact; without any, nothing is known of it."""

    licences: frozenset[str] = frozenset()
    """Names of the licences, all of which hold."""
    credentialed: frozenset[str] = frozenset()
    """Names of the sources in it that their owners give to named persons only."""

    def __or__(self, other: "Rules") -> "Rules":
        return Rules(self.licences | other.licences, self.credentialed | other.credentialed)

    def metadata(self) -> dict[str, str]:
        """As they stand in a table's metadata."""
        told = {LICENCE: SEPARATOR.join(sorted(self.licences)), CREDENTIALED: SEPARATOR.join(sorted(self.credentialed))}
        return {key: text for key, text in told.items() if text}

    def record(self) -> dict[str, list[str]]:
        """As they stand in a sidecar."""
        return {LICENCE: sorted(self.licences), CREDENTIALED: sorted(self.credentialed)}

    @classmethod
    def told(cls, record: Mapping[str, Iterable[str]]) -> "Rules":
        """From a record as `record` gives it; of an empty one, none."""
        return cls(*(frozenset(record.get(key, ())) for key in (LICENCE, CREDENTIALED)))

    @classmethod
    def of(cls, path: Path) -> "Rules":
        """Those of a table."""
        import pyarrow.parquet as pq

        found = pq.read_schema(path).metadata or {}
        licences, credentialed = (found.get(k.encode(), b"").decode() for k in (LICENCE, CREDENTIALED))
        return cls(*(frozenset(filter(None, text.split(SEPARATOR))) for text in (licences, credentialed)))


UNSTATED = "not stated"
"""Licence of what states none."""
SYNTHETIC = Rules(frozenset({"synthetic"}))
"""Those of phantoms, which are nobody's."""

_current = Rules()


def current() -> Rules:
    """Those of what is written now."""
    return _current


def hold(rules: Rules) -> None:
    """Let rules hold for all tables written from now on in this process."""
    global _current
    _current = rules


def union(paths: Iterable[Path]) -> Rules:
    """Those of all the tables among some files."""
    found = Rules()
    for path in paths:
        if path.suffix == ".parquet" and path.is_file():
            found |= Rules.of(path)
    return found
