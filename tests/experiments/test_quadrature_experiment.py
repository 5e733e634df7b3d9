from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import cpath
from cpath.methods import NeuronIntGrad
from experiments import quadrature
from experiments.framework.job import job_folder
from experiments.framework.store import ArtifactStore
from experiments.framework.subject import load_data, load_images, trained_model
from tests.rows import row_of


def test_results_are_the_means_of_what_the_library_says_image_by_image(configure, trained):
    cfg = configure(
        "experiment=quadrature",
        "experiment.images=5",
        "experiment.batch=3",
        "experiment.reference=[midpoint,4]",
        "experiment.rules=[[endpoint,2],[midpoint,4]]",
        "sparsity=80",
    )
    table = quadrature.run(cfg)
    data = load_data(cfg)
    images, model = load_images(cfg, data), trained_model(cfg, data, ArtifactStore(trained / "artifacts"))
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
    by_image = pd.read_csv(job_folder(cfg) / "per_image.csv.gz")
    assert by_image["endpoint, 2 nodes|residual"].tolist() == pytest.approx(residuals, rel=1e-3)
