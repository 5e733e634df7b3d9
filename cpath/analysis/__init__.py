"""What pathways are made of, how they overlap, and what the restricted network still answers."""

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
