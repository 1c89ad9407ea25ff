"""The conditions under which a benchmark question is put to a model, and the baselines that models are compared with.

medmim.questions.conditions says what each condition shows, medmim.scoring.leaderboard what a baseline is.
"""

from typing import Literal, get_args

Condition = Literal["plain", "rotated", "blind", "other_patient", "reordered"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
BASELINES = ("chance", "majority")
"""Rows of the leaderboard beside the models."""
