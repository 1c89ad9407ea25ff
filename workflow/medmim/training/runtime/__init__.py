"""Running a training: processes, checkpoints, pre-emption, progress."""
