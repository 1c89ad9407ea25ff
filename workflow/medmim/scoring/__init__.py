"""Scores: replies read against their options, open answers compared, intervals over patients. No torch anywhere in here."""
