"""Models: families, prompts, batches, weights."""
