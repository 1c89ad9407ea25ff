"""Held-out sets as others publish them, one module a set."""
