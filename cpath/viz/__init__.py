"""Pictures of images, maps, pathways and faithfulness, and the style that all figures of the project share."""

from cpath.viz.explorer import Explorer, explore
from cpath.viz.faithfulness import show_faithfulness
from cpath.viz.maps import map_grid, map_strip, sparsity_grid
from cpath.viz.show import show
from cpath.viz.sites import show_pathway, show_scores
from cpath.viz.style import Drawing, colour_of, criterion_label, in_order, label_of, save_drawings

__all__ = [
    "Drawing",
    "Explorer",
    "colour_of",
    "criterion_label",
    "explore",
    "in_order",
    "label_of",
    "map_grid",
    "map_strip",
    "save_drawings",
    "show",
    "show_faithfulness",
    "show_pathway",
    "show_scores",
    "sparsity_grid",
]
