"""Questions written by a language model: templates' ones in other words, and open ones from findings. Code checks every reply."""
