"""Planning a training: parameters, FLOPs, memory, GPU types."""
