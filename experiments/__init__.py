"""The experiments of the paper, one file each; `python -m experiments --help` tells how to run them."""

from pathlib import Path

CONF = Path(__file__).resolve().parent.parent / "conf"
"""Folder of the configuration files."""
