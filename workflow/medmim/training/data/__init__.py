"""Training shards: questions as token ids in a model's own layout, and each of their images once as preprocessed pixels."""
