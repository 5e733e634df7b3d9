"""Extraction methods by name: `get`, `names`, `register`, and the classes themselves."""

from cpath.randomness import image_generators

# isort: off
# The order of import is the order of registration, in which tables and figures show the methods.
from cpath.methods.base import Contributions, Method, get, names, register
from cpath.methods.contribution import NeuronIntGrad, NeuronMCT
from cpath.methods.pruning import Greedy
from cpath.methods.routing import DGR, DGRRandomInit
from cpath.methods.learned import LearnedRanking
from cpath.methods.baseline import Active, Random
from cpath.methods.released import GreedyReleased, NeuronIntGradReleased
# isort: on

__all__ = [
    "DGR",
    "Active",
    "Contributions",
    "DGRRandomInit",
    "Greedy",
    "GreedyReleased",
    "LearnedRanking",
    "Method",
    "NeuronIntGrad",
    "NeuronIntGradReleased",
    "NeuronMCT",
    "Random",
    "get",
    "image_generators",
    "names",
    "register",
]
