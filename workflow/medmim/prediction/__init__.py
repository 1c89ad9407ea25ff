"""Replies of a model to the benchmark's questions, and how likely it finds each option's letter."""
