"""Path decoding: images to which restricted networks respond most."""

from cpath.decoding.api import Decoding, decode
from cpath.decoding.objectives import Channel, Layer, Logit, Neuron, Objective
from cpath.decoding.starts import PARAMETRISATIONS, Parametrisation, standard_transforms

__all__ = [
    "PARAMETRISATIONS",
    "Channel",
    "Decoding",
    "Layer",
    "Logit",
    "Neuron",
    "Objective",
    "Parametrisation",
    "decode",
    "standard_transforms",
]
