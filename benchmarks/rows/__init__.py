"""One module per row: its first line is the heading, and its function `measure` returns the tables."""
