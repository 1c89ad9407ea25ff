"""Services that answer as OpenAI's chat completions do."""
