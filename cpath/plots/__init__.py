"""Figures: a tidy table in, figures out. Nothing else than the table decides what is drawn."""

from cpath.plots.benchmark import benchmark_figures
from cpath.plots.decoding import Decoded, Picture, decoding_figures, decoding_pictures
from cpath.plots.degradation import degradation_figures
from cpath.plots.linearity import linearity_figures
from cpath.plots.path_analysis import path_analysis_figures
from cpath.plots.quadrature import quadrature_figures
from cpath.plots.roar import roar_cell_figures, roar_figures
from cpath.plots.saliency import Maps, map_grid, saliency_figures, sparsity_grid
from cpath.plots.sanity import sanity_check_figures, sanity_strip
from cpath.plots.style import Drawing, colour_of, criterion_label, in_order, label_of, save_drawings
from cpath.plots.sweep import sweep_figures
from cpath.plots.training import training_figures

__all__ = [
    "Decoded",
    "Drawing",
    "Maps",
    "Picture",
    "benchmark_figures",
    "colour_of",
    "criterion_label",
    "decoding_figures",
    "decoding_pictures",
    "degradation_figures",
    "in_order",
    "label_of",
    "linearity_figures",
    "map_grid",
    "path_analysis_figures",
    "quadrature_figures",
    "roar_cell_figures",
    "roar_figures",
    "saliency_figures",
    "sanity_check_figures",
    "sanity_strip",
    "save_drawings",
    "sparsity_grid",
    "sweep_figures",
    "training_figures",
]
