"""What a run cost: the journals that its programs leave, summed by job and by rule, with the settings to change."""
