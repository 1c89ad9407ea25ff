"""Errors whose message alone is for the user, shown without a traceback."""


class UserError(Exception):
    """Something the user can mend."""


class TableError(ValueError):
    """A table that does not have the columns its schema declares."""


class SidecarError(ValueError):
    """A sidecar or cache record that is not as it was written."""
