"""ODIR-5K: adapter, download, phantom and questions."""
