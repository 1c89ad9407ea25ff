"""EMBED: adapter, download, phantom and questions."""
