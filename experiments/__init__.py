"""The experiments of the paper, one file each; `python -m experiments --help` tells how to run them."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

CONF = next(folder for folder in (_HERE / "conf", _HERE.parent / "conf") if folder.is_dir())
"""Folder of the configuration files: in an installed package inside of it, in a checkout beside it."""
