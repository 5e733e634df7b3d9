"""The explorer: one page, without a request to any host, in which pathways are picked and seen."""

from cpath.viz.explorer.api import Explorer, explore
from cpath.viz.explorer.examine import Answers, examine
from cpath.viz.explorer.page import Shown, write_page
from cpath.viz.explorer.plan import METHODS, SPARSITY, Plan

__all__ = ["METHODS", "SPARSITY", "Answers", "Explorer", "Plan", "Shown", "examine", "explore", "write_page"]
