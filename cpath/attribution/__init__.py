"""Attributions: one number per input element or pixel, by name or as objects.

`attribute` computes a map from a name, `get` and `names` look attributions up, `register` adds one's own;
`CaptumAttribution` and `quantus_explain` are adapters for other tools.
"""

from cpath.attribution.adapters import CaptumAttribution, quantus_explain
from cpath.attribution.api import attribute, get, names
from cpath.attribution.base import Attribution, register
from cpath.attribution.by_captum import GBP, Gradients, InputIntGrad, InputMCT, SmoothGrad
from cpath.attribution.controls import RandomMap, Sobel
from cpath.attribution.gradcam import GradCAM
from cpath.attribution.pathways import NeuronIntGradStar, PathwayGradient, pathway_gradient
from cpath.attribution.reduction import RANK_BY, pixel_relevance, single_channel
from cpath.attribution.response import ResponseProbe

__all__ = [
    "GBP",
    "RANK_BY",
    "Attribution",
    "CaptumAttribution",
    "GradCAM",
    "Gradients",
    "InputIntGrad",
    "InputMCT",
    "NeuronIntGradStar",
    "PathwayGradient",
    "RandomMap",
    "ResponseProbe",
    "SmoothGrad",
    "Sobel",
    "attribute",
    "get",
    "names",
    "pathway_gradient",
    "pixel_relevance",
    "quantus_explain",
    "register",
    "single_channel",
]
