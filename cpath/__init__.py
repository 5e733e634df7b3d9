"""cpath finds the critical pathways of a neural network: the sparse set of neurons that answers one input.

Khakzar et al., Neural Response Interpretation through the Lens of Critical Pathways, CVPR 2021.
"""

from cpath import methods
from cpath.attribution.gradient import pathway_gradient, single_channel
from cpath.errors import CpathError, InputError, MaskError, SiteError, UnknownNameError
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
    "InputError",
    "MaskError",
    "Method",
    "Observation",
    "Pathway",
    "Probe",
    "Record",
    "Scores",
    "SiteError",
    "UnknownNameError",
    "find_pathway",
    "methods",
    "observe",
    "pathway_gradient",
    "register",
    "score",
    "single_channel",
]
