"""Extraction methods by name: `get`, `names`, `register`, and the classes themselves."""

from cpath.methods.base import Contributions, Method, get, image_generators, names, register
from cpath.methods.baseline import Active, Random
from cpath.methods.contribution import NeuronIntGrad, NeuronMCT

__all__ = [
    "Active",
    "Contributions",
    "Method",
    "NeuronIntGrad",
    "NeuronMCT",
    "Random",
    "get",
    "image_generators",
    "names",
    "register",
]
