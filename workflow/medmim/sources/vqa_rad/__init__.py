"""VQA-RAD: adapter, download, phantom and questions."""
