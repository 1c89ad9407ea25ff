"""The model families: prompt layout and image preprocessing of each."""
