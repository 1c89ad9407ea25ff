"""The sources' terms, as their source.yaml state them, and the data-use policies that follow from them."""

from medmim.config.source_plugins import find_source
from medmim.tables.data_policy import DataPolicy

RELEASE_POLICY = DataPolicy(frozenset({"Med-MIM release, as its authors publish it"}))
"""Policy of the authors' published questions."""


def source_policy(source: str, credentialed: bool) -> DataPolicy:
    """Policy of a real source's files, of which the config says whether it is credentialed."""
    return DataPolicy(frozenset({find_source(source).licence}), frozenset({source} if credentialed else ()))
