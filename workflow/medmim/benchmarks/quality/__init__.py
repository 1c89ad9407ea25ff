"""Faults and statistics of a benchmark."""
