"""Remarks: each is made from the rows, and is not there where the rows say otherwise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.engine.table import Row, tidy_table
from experiments.paper.evidence import Results
from experiments.paper.remarks import equals_gradcam, remarks


def _table(experiment: str, *rows: Row) -> pd.DataFrame:
    return tidy_table(rows, experiment=experiment, dataset="digits", model="resnet8_narrow", seed=0)


def _said(*tables: pd.DataFrame, cells: pd.DataFrame | None = None) -> dict[str, list[str]]:
    table = pd.concat(tables, ignore_index=True)
    return remarks(Results(table) if cells is None else Results(table, cells=cells))


def _pathways(dgr: int, greedy: int, kept: float = 65.0) -> pd.DataFrame:
    return _table(
        "path_analysis",
        Row("network", "base_sparsity", 50.0, n=20),
        Row("dgr", "dead_share", 10.0, "sparsity", 90.0, n=dgr),
        Row("dgr", "dead_share", 10.0, "sparsity", 99.0, n=dgr),
        Row("greedy", "dead_share", 40.0, "sparsity", 90.0, n=greedy),
        Row("dgr", "class_kept", kept, "sparsity", 90.0, n=20),
        Row("dgr", "class_kept", 1.0, "sparsity", 99.0, n=20),
        Row("greedy", "self_overlap", 0.31, "sparsity", 90.0, n=8),
        Row("dgr", "self_overlap", 0.95, "sparsity", 90.0, n=8),
    )


def test_empty_pathways_are_counted_by_method_and_sparsity():
    first = _said(_pathways(9, 20))["path_analysis"][0]
    assert first == (
        "Empty pathways, of 20 images, which are left out of overlaps and dead shares: DGR 11 at 90 %, 11 at 99 %."
    )
    assert _said(_pathways(20, 20))["path_analysis"][0] == "No method left an image with an empty pathway."


def test_the_survival_of_the_class_is_that_at_the_papers_sparsity():
    found = _said(_pathways(20, 20, kept=65.0))["path_analysis"][1]
    assert found.startswith(
        "Images whose class the restricted network predicts as the whole one does, at a sparsity of 90 %: DGR 65 %."
    )
    assert "DGR chooses gates that keep the class" in found


def test_a_method_that_differs_from_itself_is_named_and_a_stable_one_is_not():
    (found,) = [text for text in _said(_pathways(20, 20))["path_analysis"] if "one rounding" in text]
    assert found.startswith(
        "The pathway of Greedy overlaps with its own after a change of the image by one rounding by 0.31 "
        "(Jaccard index at 90 %, n = 8 images)"
    )


def _roar(difference: float, half: float, *, seeds: int = 3, networks: int = 1) -> pd.DataFrame:
    bases = [
        Row("base", "test_accuracy", 90.0, *(("base_seed", float(k)) if networks > 1 else ()), n=100)
        for k in range(networks)
    ]
    interval = (difference - half, difference + half) if seeds > 1 else (np.nan, np.nan)
    return _table(
        "roar_table",
        *bases,
        *(
            Row(name, "roar_accuracy", value, "percent_removed", x, n=seeds * networks)
            for name, value in (("neuron_mct", 50.0 + difference), ("random", 50.0))
            for x in (0.0, 50.0)
        ),
        Row("neuron_mct", "roar_difference/random", difference, "", "", *interval, n=seeds * networks),
    )


@pytest.mark.parametrize(
    ("difference", "half", "said"), [(1.7, 6.0, True), (-1.7, 6.0, True), (-9.0, 2.0, False), (5.0, 1.0, True)]
)
def test_random_pixels_that_cost_as_much_are_said_where_they_do(difference, half, said):
    found = [text for text in _said(_roar(difference, half))["roar_table"] if text.startswith("Removing random")]
    assert bool(found) == said
    if said:
        low, high = difference - half, difference + half
        assert f"difference {difference:g} ({low:g} to {high:g} points), n = 3 seeds" in found[0]
        assert f"(mean accuracy 50 and {50 + difference:g} %" in found[0]


@pytest.mark.parametrize(("difference", "said"), [(1.0, True), (-1.0, False)])
def test_with_one_seed_the_means_decide_on_that(difference, said):
    found = _said(_roar(difference, 0.0, seeds=1))["roar_table"]
    assert any(text.startswith("Removing random") for text in found) == said
    assert found[-1].startswith("One explained network and one seed")


def test_what_the_intervals_of_roar_cover_depends_on_the_number_of_networks():
    assert _said(_roar(-9.0, 2.0))["roar_table"] == [
        "All maps explain one network: intervals are over 3 seeds of the retraining, and say nothing of another "
        "network (experiment.base_seed=[0,1,2] explains several)."
    ]
    cells = pd.DataFrame(
        {
            "attribution": name,
            "percent": 50.0,
            "keep": False,
            "seed": seed,
            "base_seed": base,
            "test_accuracy": value,
        }
        for base, seed, shift in ((0, 0, 0.1), (0, 1, 0.3), (1, 0, -0.2), (1, 1, 0.1))
        for name, value in (("neuron_mct", 41.0 + shift), ("random", 50.0))
    )
    assert _said(_roar(-9.0, 2.0, seeds=2, networks=2), cells=cells) == {}


def _sanity(fewest: int, *, draws: bool = True, left_out: float | None = None) -> pd.DataFrame:
    rows = [
        Row("gbp", "spearman_abs", 0.5, "randomized_down_to", block, n=n)
        for block, n in (("fc", 16), ("conv", fewest))
    ]
    rows += [Row("gbp", "spearman_abs/sd_of_draws", 0.1, "randomized_down_to", "fc")] if draws else []
    if left_out is not None:
        rows.append(Row("gbp", "maps_left_out/spearman_abs", left_out, "randomized_down_to", "conv", n=16))
    return _table("sanity_checks", *rows)


def test_constant_maps_and_a_single_draw_are_said():
    assert _said(_sanity(16)) == {}
    (found,) = _said(_sanity(11, left_out=40.0))["sanity_checks"]
    assert found.endswith("at the block where they are most: GBP 5 of 16 images, 40 % of the maps of all draws.")
    (found,) = _said(_sanity(16, draws=False))["sanity_checks"]
    assert found.startswith("One draw of the random weights")


def _areas(star: float, gradcam: float, experiment: str = "degradation", metric: str = "lerf_area") -> pd.DataFrame:
    values = {"neuron_intgrad_star": star, "gradcam": gradcam, "gbp": 0.1, "random": 0.9}
    return _table(
        experiment, *(Row(name, metric, value, "up_to_percent", 10.0, n=9) for name, value in values.items())
    )


def test_neuron_intgrad_star_is_gradcam_where_their_numbers_say_so():
    assert equals_gradcam(_areas(0.3, 0.3001))
    assert not equals_gradcam(_areas(0.3, 0.31))
    assert not equals_gradcam(_areas(0.3, 0.3).query("method != 'gradcam'"))
    roar = _areas(60.0, 61.0, "roar_table", "roar_accuracy")
    found = _said(_areas(0.3, 0.3), roar)
    assert found["degradation"] == [
        "NeuronIntGrad* and GradCAM have equal numbers here, but for rounding: on this network our reading of "
        "NeuronIntGrad* is GradCAM, and both rows are one finding."
    ]
    assert any("as their equal numbers in degradation show" in text for text in found["roar_table"])
    assert not any("GradCAM" in text for texts in _said(_areas(0.3, 0.4), roar).values() for text in texts)
