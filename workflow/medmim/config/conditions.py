"""The conditions under which a benchmark question is put to a model; medmim.questions.conditions says what each one shows."""

from typing import Literal, get_args

Condition = Literal["plain", "rotated", "blind", "other_patient", "reordered"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
