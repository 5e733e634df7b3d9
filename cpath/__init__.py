"""cpath finds the critical pathways of a neural network: the sparse set of neurons that answers one input.

Khakzar et al., Neural Response Interpretation through the Lens of Critical Pathways, CVPR 2021.
"""

from cpath import attribution, evaluation, methods
from cpath.attribution import attribute, pathway_gradient, single_channel
from cpath.decoding import Decoding, decode
from cpath.errors import (
    CpathError,
    InputError,
    MaskError,
    MissingImageError,
    MissingPackageError,
    OutOfMemoryError,
    SiteError,
    StorageError,
    UnknownNameError,
)
from cpath.methods import Contributions, Method, register
from cpath.pathway import Pathway
from cpath.probe import Probe, Record
from cpath.scores import Scores, find_pathway, score
from cpath.sites import ACTIVATIONS, Observation, observe

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "Contributions",
    "CpathError",
    "Decoding",
    "InputError",
    "MaskError",
    "Method",
    "MissingImageError",
    "MissingPackageError",
    "Observation",
    "OutOfMemoryError",
    "Pathway",
    "Probe",
    "Record",
    "Scores",
    "SiteError",
    "StorageError",
    "UnknownNameError",
    "attribute",
    "attribution",
    "decode",
    "evaluation",
    "find_pathway",
    "methods",
    "observe",
    "pathway_gradient",
    "register",
    "score",
    "single_channel",
]
