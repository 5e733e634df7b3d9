"""Empty pathways of a job are said once, not for every batch and sparsity."""

from __future__ import annotations

import logging
import warnings

import pytest

import cpath
from experiments.engine.empty_pathways import saying_empty_pathways_once
from experiments.engine.job import run

TIED = """
import torch, cpath

class Tied(cpath.Method):  # scores all neurons alike
    name = "tied"

    def contributions(self, probe):
        return {name: torch.ones_like(value) for name, value in probe.record().activations.items()}
"""


def _said(caplog) -> list[str]:
    return [one.getMessage() for one in caplog.records if "empty pathway" in one.getMessage()]


SETTINGS = ["experiment.images=5", "experiment.batch=2", "sparsity=[80,99.5]"]


@pytest.mark.parametrize("override", ["experiment=path_analysis", "experiment=linearity"])
def test_a_job_says_in_one_line_how_many_pathways_of_which_method_are_empty(
    configure, trained, users, caplog, override
):
    users.write("tied_scores", TIED)
    own = ["method=neuron_mct", "+method.mine={_target_: tied_scores.Tied}"]
    with warnings.catch_warnings(record=True) as shown, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        run(configure(override, *own, *SETTINGS))
    (line,) = _said(caplog)
    assert line.startswith("images with an empty pathway: 'tied' 5 at sparsity=80, 5 at sparsity=99.5. ")
    assert not [one for one in shown if issubclass(one.category, cpath.EmptyPathwayWarning)]


def test_a_job_without_empty_pathways_says_nothing(configure, trained, caplog):
    with caplog.at_level(logging.WARNING):
        run(configure("experiment=path_analysis", "method=neuron_mct", *SETTINGS))
    assert not _said(caplog)


def test_other_warnings_are_shown_and_all_are_again_afterwards(caplog):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with pytest.raises(ZeroDivisionError), saying_empty_pathways_once():
            for sparsity, empty in ((90.0, 1), (99.0, 2), (90.0, 3)):
                warnings.warn(cpath.EmptyPathwayWarning("dgr", sparsity, empty, 4), stacklevel=1)
            warnings.warn("another one", RuntimeWarning, stacklevel=1)
            raise ZeroDivisionError  # what stops a job does not hide what was found
        warnings.warn(cpath.EmptyPathwayWarning("dgr", 90.0, 1, 4), stacklevel=1)
    assert [one.category for one in shown] == [RuntimeWarning, cpath.EmptyPathwayWarning]
    assert str(shown[0].message) == "another one"
    (line,) = _said(caplog)
    assert "'dgr' 4 at sparsity=90, 2 at sparsity=99." in line
