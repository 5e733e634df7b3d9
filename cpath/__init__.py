"""cpath finds the critical pathways of a neural network: the sparse set of neurons that answers one input.

Khakzar et al., Neural Response Interpretation through the Lens of Critical Pathways, CVPR 2021.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from cpath import analysis, attribution, data, decoding, evaluation, methods, models
    from cpath import training as training
    from cpath import viz as viz

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
    "analysis",
    "attribute",
    "attribution",
    "data",
    "decode",
    "decoding",
    "evaluation",
    "find_pathway",
    "methods",
    "models",
    "observe",
    "pathway_gradient",
    "register",
    "score",
    "single_channel",
]

# `training` and `viz` are not in `__all__`: they need packages that the library alone does not bring.
_SUBMODULES = (
    *("analysis", "attribution", "data", "decoding", "evaluation", "methods", "models"),
    *("training", "viz"),
)


def __getattr__(name: str) -> Any:
    """The submodules, imported when they are first asked for."""
    if name not in _SUBMODULES:
        raise AttributeError(f"module 'cpath' has no attribute '{name}'")
    try:
        return import_module(f"cpath.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "cpath":
            raise
        raise MissingPackageError(
            f"cpath.{name} needs {error.name}, which is not installed: "
            "pip install 'critical-pathways[experiments]'."
        ) from error


def __dir__() -> list[str]:
    """The names that are there, and the submodules that are not imported yet."""
    return sorted({*globals(), *_SUBMODULES})
