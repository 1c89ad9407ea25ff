"""What people read: the report, costs, model cards, and where a number came from."""
