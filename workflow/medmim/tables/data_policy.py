"""Rules of use, which travel with the data: the licences an artifact's content came under, and the sources whose owners forbid
passing it on.

A job's artifacts are under the rules of all that it read. They stand in every table's own metadata, `licence` and `credentialed`,
and are read from there, so that they are part of what an artifact's content is: whoever holds a file holds its rules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

LICENCE_KEY, CREDENTIALED_KEY = "licence", "credentialed"
SEPARATOR = "; "


@dataclass(frozen=True)
class DataPolicy:
    """What holds for an artifact; without any, nothing is known of it."""

    licences: frozenset[str] = frozenset()
    """Names of the licences, all of which hold."""
    credentialed: frozenset[str] = frozenset()
    """Names of the sources in it that their owners give to named persons only."""

    def __or__(self, other: "DataPolicy") -> "DataPolicy":
        return DataPolicy(self.licences | other.licences, self.credentialed | other.credentialed)

    def to_metadata(self) -> dict[str, str]:
        """As they stand in a table's metadata."""
        fields = {LICENCE_KEY: SEPARATOR.join(sorted(self.licences)), CREDENTIALED_KEY: SEPARATOR.join(sorted(self.credentialed))}
        return {key: text for key, text in fields.items() if text}

    def to_record(self) -> dict[str, list[str]]:
        """As they stand in a sidecar."""
        return {LICENCE_KEY: sorted(self.licences), CREDENTIALED_KEY: sorted(self.credentialed)}

    @classmethod
    def from_record(cls, record: Mapping[str, Iterable[str]]) -> "DataPolicy":
        """From a record as `to_record` gives it; of an empty one, none."""
        return cls(*(frozenset(record.get(key, ())) for key in (LICENCE_KEY, CREDENTIALED_KEY)))

    @classmethod
    def from_table(cls, path: Path) -> "DataPolicy":
        """Those of a table."""
        import pyarrow.parquet as pq

        table_metadata = pq.read_schema(path).metadata or {}
        licences, credentialed = (table_metadata.get(k.encode(), b"").decode() for k in (LICENCE_KEY, CREDENTIALED_KEY))
        return cls(*(frozenset(filter(None, text.split(SEPARATOR))) for text in (licences, credentialed)))


UNSTATED_LICENCE = "not stated"
"""Licence of what states none."""
SYNTHETIC_POLICY = DataPolicy(frozenset({"synthetic"}))
"""Those of phantoms, which are nobody's."""

_current_policy = DataPolicy()


def current_policy() -> DataPolicy:
    """Those of what is written now."""
    return _current_policy


def set_current_policy(policy: DataPolicy) -> None:
    """Let rules hold for all tables written from now on in this process."""
    global _current_policy
    _current_policy = policy


def combine_policies(paths: Iterable[Path]) -> DataPolicy:
    """Those of all the tables among some files."""
    policy = DataPolicy()
    for path in paths:
        if path.suffix == ".parquet" and path.is_file():
            policy |= DataPolicy.from_table(path)
    return policy
