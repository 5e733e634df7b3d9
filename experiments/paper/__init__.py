"""The paper as a whole: its stages, its claims and published numbers, and the report."""
