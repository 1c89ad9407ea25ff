"""MS-CXR-T: adapter, download, phantom and questions."""
