"""Errors, files, archives and processes: what every part uses and no domain knowledge."""
