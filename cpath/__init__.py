"""Find the critical pathways of a neural network: the sparse set of neurons that answers one input.

`find_pathway` scores every neuron and keeps the highest scores, `Pathway.restrict` runs the model through the
pathway only, and `attribute` turns a pathway into a saliency map. The subpackages hold the extraction methods
(`methods`), the attributions (`attribution`), measures on pathways (`analysis`), tests of attributions
(`evaluation`), activation maximisation (`decoding`), datasets (`data`) and models (`models`).

Every example in the docstrings of this package has these names at hand:

    >>> from collections import OrderedDict
    >>> import torch
    >>> from torch import nn
    >>> import cpath
    >>> _ = torch.manual_seed(0)
    >>> layers = OrderedDict(
    ...     conv1=nn.Conv2d(3, 4, 3, padding=1),
    ...     relu1=nn.ReLU(),
    ...     conv2=nn.Conv2d(4, 6, 3, stride=2, padding=1),
    ...     relu2=nn.ReLU(),
    ...     flatten=nn.Flatten(),
    ...     fc=nn.Linear(96, 5),
    ... )
    >>> model = nn.Sequential(layers)  # a classifier of 5 classes with 352 neurons at 2 sites
    >>> images = torch.randn(2, 3, 8, 8)

A first use:

    >>> pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90)
    >>> with pathway.restrict(model):  # the model computes through the pathway only
    ...     logits = model(images)
    >>> logits.shape
    torch.Size([2, 5])
    >>> cpath.pathway_gradient(model, images, pathway).shape
    torch.Size([2, 3, 8, 8])

Source: Khakzar et al., Neural Response Interpretation through the Lens of Critical Pathways, CVPR 2021.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cpath.attribution import attribute, pathway_gradient, single_channel
from cpath.decoding import Decoding, decode
from cpath.errors import (
    CpathError,
    EmptyPathwayWarning,
    InputError,
    MaskError,
    MissingImageError,
    MissingPackageError,
    OutOfMemoryError,
    OutputSiteWarning,
    SiteError,
    StorageError,
    TrainingError,
    UnknownNameError,
    UnsupportedTorchError,
)
from cpath.means import mean_activations
from cpath.methods import Contributions, Method, register
from cpath.pathway import Pathway
from cpath.probe import Probe, Record
from cpath.scores import Scores, find_pathway, score
from cpath.sites import ACTIVATIONS, Observation, observe
from cpath.units import UNITS, Units

if TYPE_CHECKING:
    from cpath import analysis, attribution, data, decoding, evaluation, methods, models
    from cpath import stacked as stacked
    from cpath import training as training
    from cpath import viz as viz
    from cpath.analysis.classes import PathwayCounter
    from cpath.evaluation.faithfulness import Faithfulness, faithfulness
    from cpath.export import smaller_network
    from cpath.shards import ScoreShards, score_dataset
    from cpath.viz.explorer import explore as explore
    from cpath.viz.show import show as show

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "UNITS",
    "Contributions",
    "CpathError",
    "Decoding",
    "EmptyPathwayWarning",
    "Faithfulness",
    "InputError",
    "MaskError",
    "Method",
    "MissingImageError",
    "MissingPackageError",
    "Observation",
    "OutOfMemoryError",
    "OutputSiteWarning",
    "Pathway",
    "PathwayCounter",
    "Probe",
    "Record",
    "ScoreShards",
    "Scores",
    "SiteError",
    "StorageError",
    "TrainingError",
    "Units",
    "UnknownNameError",
    "UnsupportedTorchError",
    "analysis",
    "attribute",
    "attribution",
    "data",
    "decode",
    "decoding",
    "evaluation",
    "faithfulness",
    "find_pathway",
    "mean_activations",
    "methods",
    "models",
    "observe",
    "pathway_gradient",
    "register",
    "score",
    "score_dataset",
    "single_channel",
    "smaller_network",
]

# `stacked`, `training`, `viz`, `show`, `explore` need packages that the library does not bring: not in `__all__`.
_SUBMODULES = (
    *("analysis", "attribution", "data", "decoding", "evaluation", "methods", "models"),
    *("stacked", "training", "viz"),
)
_PICTURES = ("show", "explore")  # of `viz`
# Their modules import others that `import cpath` alone does not need.
_LATE = {
    **dict.fromkeys(("Faithfulness", "faithfulness"), "cpath.evaluation.faithfulness"),
    "PathwayCounter": "cpath.analysis.classes",
    **dict.fromkeys(("ScoreShards", "score_dataset"), "cpath.shards"),
    "smaller_network": "cpath.export",
}


def __getattr__(name: str) -> Any:
    """Import a submodule, or what a submodule offers, when it is first accessed.

    Args:
        name: Name of the submodule, function or class.

    Returns:
        The submodule, function or class.

    Raises:
        AttributeError: If cpath has nothing of this name.
        MissingPackageError: If the submodule needs a package that is not installed.
    """
    if name in _PICTURES:
        return getattr(__getattr__("viz"), name)
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
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
    """List the names of the package, including what is not imported yet."""
    return sorted({*globals(), *_SUBMODULES, *_LATE, *_PICTURES})
