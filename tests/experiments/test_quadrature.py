from __future__ import annotations

import math

import numpy as np
import pytest

import cpath
from cpath.errors import InputError, UnknownNameError
from cpath.methods import NeuronIntGrad
from experiments.engine.measuring import read_per_image
from tests.rows import row_of


def test_results_are_the_means_of_what_the_library_says_image_by_image(job, trained):
    made = job(
        "experiment=quadrature",
        "experiment.images=5",
        "experiment.batch=3",
        "experiment.reference=[midpoint,4]",
        "experiment.rules=[[endpoint,2],[midpoint,4]]",
        "sparsity=80",
    )
    table = made.run()
    images, model = made.sample(5), made.model
    residuals, overlaps = [], []
    for index in range(5):
        image = images.batch(slice(index, index + 1))
        coarse, fine = (
            cpath.score(model, image, NeuronIntGrad(rule=rule, nodes=nodes))
            for rule, nodes in (("endpoint", 2), ("midpoint", 4))
        )
        residuals.append(np.nanmean([residual.item() for residual in coarse.residual.values()]))
        overlaps.append(coarse.pathway(80).jaccard(fine.pathway(80)).item())
    assert row_of(table, "endpoint, 2 nodes", "residual").value == pytest.approx(np.mean(residuals), rel=1e-3)
    row = row_of(table, "endpoint, 2 nodes", "jaccard_with_reference", 80)
    assert row.value == pytest.approx(np.mean(overlaps), rel=1e-3)
    # The reference is one of the rules too, and counts once.
    row = row_of(table, "midpoint, 4 nodes", "jaccard_with_reference", 80)
    assert (row.value, row.n) == (1, 5)
    by_image = read_per_image(made.folder)
    mine = by_image[(by_image.method == "endpoint, 2 nodes") & (by_image.metric == "residual")]
    assert mine.value.tolist() == pytest.approx(residuals, rel=1e-3)
    assert mine.image.tolist() == images.ids


@pytest.mark.parametrize("images", [1, 2, 3])
def test_any_number_of_images_and_any_sparsity_has_its_rows(job, trained, images):
    table = job(
        "experiment=quadrature",
        f"experiment.images={images}",
        "experiment.batch=2",
        "experiment.reference=[midpoint,2]",
        "experiment.rules=[[endpoint,1]]",
        "sparsity=[90.00001,90.00002,99.99999]",
    ).run()
    for sparsity in (90.00001, 90.00002):
        assert row_of(table, "endpoint, 1 nodes", "jaccard_with_reference", sparsity).n == images
        row = row_of(table, "midpoint, 2 nodes", "jaccard_with_reference", sparsity)
        assert (row.value, row.n) == (1, images)
    # So small a share of so few neurons is none of them: no overlap to speak of, and no image counts.
    row = row_of(table, "midpoint, 2 nodes", "jaccard_with_reference", 99.99999)
    assert (math.isnan(row.value), row.n) == (True, 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment.rules=[[endpoint]]", r"experiment.rules\[0\] must be \[rule, nodes\]"),
        ("experiment.rules=[]", "experiment.rules must have at least 1 item"),
        ("experiment.rules=[[endpoint,0]]", r"experiment.rules\[0\]\[1\] must be greater than or equal to 1"),
        ("experiment.rules=[[endpoint,5],[endpoint,5]]", "experiment.rules must be different values"),
        ("experiment.rules=[[trapezoid,1]]", "needs nodes ≥ 2"),
        ("experiment.reference=midpoint", r"experiment.reference must be \[rule, nodes\]"),
        ("experiment.reference=[midpoint,2.5]", r"experiment.reference\[1\] must be a valid integer"),
    ],
)
def test_an_unusable_rule_is_refused_before_any_work(job, override, message):
    with pytest.raises(InputError, match=message):
        job("experiment=quadrature", override)


def test_an_unknown_rule_names_those_there_are(job):
    with pytest.raises(UnknownNameError, match=r"'midpiont'.*midpoint"):
        job("experiment=quadrature", "experiment.rules=[[midpiont,5]]")
