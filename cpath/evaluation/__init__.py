"""Evaluation: faithfulness of pathways; pixel removal (degradation, ROAR), sanity checks; accuracy of models."""

from cpath.evaluation.classification import accuracy
from cpath.evaluation.controls import faithfulness_transfer, other_answer, runner_up
from cpath.evaluation.copies import COPIES
from cpath.evaluation.curves import area_under_curve, mean_height, mean_rank_agreement, rank_agreement
from cpath.evaluation.degradation import PERCENT, Degradation, degrade
from cpath.evaluation.faithfulness import KEEP, Faithfulness, faithfulness
from cpath.evaluation.imputation import NoisyLinear
from cpath.evaluation.randomization import INITS, find_blocks, redraw
from cpath.evaluation.removal import ORDERS, rank_pixels, remove_pixels, removed_pixels
from cpath.evaluation.retraining import AlteredSplit, StoredRanks, altered, chunks_of, parts_of, stored_ranks
from cpath.evaluation.sanity_checks import SanityCheck, randomise, sanity_check
from cpath.evaluation.similarity import MEASURES, Comparison

__all__ = [
    "COPIES",
    "INITS",
    "KEEP",
    "MEASURES",
    "ORDERS",
    "PERCENT",
    "AlteredSplit",
    "Comparison",
    "Degradation",
    "Faithfulness",
    "NoisyLinear",
    "SanityCheck",
    "StoredRanks",
    "accuracy",
    "altered",
    "area_under_curve",
    "chunks_of",
    "degrade",
    "faithfulness",
    "faithfulness_transfer",
    "find_blocks",
    "mean_height",
    "mean_rank_agreement",
    "other_answer",
    "parts_of",
    "randomise",
    "rank_agreement",
    "rank_pixels",
    "redraw",
    "remove_pixels",
    "removed_pixels",
    "runner_up",
    "sanity_check",
    "stored_ranks",
]
