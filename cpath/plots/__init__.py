"""Figures: a tidy table in, figures out. Nothing else than the table decides what is drawn."""

from cpath.plots.benchmark import benchmark_figures
from cpath.plots.path_analysis import path_analysis_figures
from cpath.plots.quadrature import quadrature_figures
from cpath.plots.style import Drawing, colour_of, in_order, label_of, save_drawings
from cpath.plots.training import training_figures

__all__ = [
    "Drawing",
    "benchmark_figures",
    "colour_of",
    "in_order",
    "label_of",
    "path_analysis_figures",
    "quadrature_figures",
    "save_drawings",
    "training_figures",
]
