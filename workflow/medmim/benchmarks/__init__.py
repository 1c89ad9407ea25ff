"""Benchmarks: further held-out sets, the authors' release, and the quality of both."""
