"""Synthetic cohorts, one module a source, each in its owner's layout: `write(folder, patients=N, seed=M)`.

What the tables say is true of the pixels, of shapes and their places. How bright a picture is says nothing, since each is
given a histogram that does not depend on what it shows. A patient is drawn from the generator of (seed, source, number)
alone, so a larger cohort holds the smaller one's files unchanged. `phantom_truth.csv` (path, name, value) states beside the
owner's tables what was drawn but the owner does not publish, e.g. how large a lesion is; no owner's release has such a file.
"""
