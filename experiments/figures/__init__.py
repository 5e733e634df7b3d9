"""Figures of the experiments: a tidy table in, figures out. Nothing but the table decides what is drawn."""
