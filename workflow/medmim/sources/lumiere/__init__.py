"""LUMIERE: adapter, download, phantom and questions."""
