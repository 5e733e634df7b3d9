"""Measures on pathways: composition, overlap, answers of the restricted network, intervals of means."""

from cpath.analysis.intervals import Interval, bootstrap_mean, t_mean
from cpath.analysis.linearity import affine_radius
from cpath.analysis.overlap import compare_pathways, response_preservation, site_counts

__all__ = [
    "Interval",
    "affine_radius",
    "bootstrap_mean",
    "compare_pathways",
    "response_preservation",
    "site_counts",
    "t_mean",
]
