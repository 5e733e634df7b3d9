"""Measures on pathways: composition, overlap, responses; intervals of means, and comparisons of several."""

from cpath.analysis.classes import PathwayCounter
from cpath.analysis.comparisons import Comparison, compare_means, compare_paired
from cpath.analysis.detection import Detection, detection
from cpath.analysis.intervals import Interval, bootstrap_mean, crossed_mean, t_mean
from cpath.analysis.linearity import affine_radius, check_piecewise_affine
from cpath.analysis.overlap import compare_pathways, response_preservation, site_counts

__all__ = [
    "Comparison",
    "Detection",
    "Interval",
    "PathwayCounter",
    "affine_radius",
    "bootstrap_mean",
    "check_piecewise_affine",
    "compare_means",
    "compare_paired",
    "compare_pathways",
    "crossed_mean",
    "detection",
    "response_preservation",
    "site_counts",
    "t_mean",
]
