"""The benchmark for others' tools: each module writes one tool's layout into a folder, by a function `write`."""
