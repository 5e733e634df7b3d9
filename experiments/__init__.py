"""The experiments of the paper, one file each; `python -m experiments --help` tells how to run them."""
