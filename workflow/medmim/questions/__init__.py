"""Questions: their form (prompt, row, check), one module of templates per source, and the merge into splits."""
