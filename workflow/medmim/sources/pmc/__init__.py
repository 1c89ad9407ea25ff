"""PMC-15M: adapter, download, phantom and questions."""
