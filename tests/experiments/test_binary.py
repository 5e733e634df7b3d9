"""Every experiment with a binary classifier that has one logit: its numbers are those of the same one with two."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.engine.predictions import predictions

NETWORK = [
    *("dataset=custom", "dataset.name=pairs", "dataset._target_=tests.experiments.binary.pairs"),
    *("model=custom", "model.name=binary", "model._target_=tests.experiments.binary.Network"),
    *("recipe=digits", "recipe.epochs=2", "recipe.batch_size=16"),
]
METHODS = "method=[neuron_mct,neuron_intgrad,random]"
MAPS = "attribution=[gradients,gradcam,neuron_mct,random]"
DGR = "+method.dgr={iterations: 3}"
FEW = ["experiment.images=3", "experiment.batch=2"]
EXPERIMENTS = {
    "train": [],
    "path_analysis": [METHODS, DGR, *FEW, "sparsity=[50,90]", "experiment.self_overlap=2"],
    "quadrature": [*FEW, "sparsity=[50]", "experiment.rules=[[midpoint,3]]", "experiment.reference=[midpoint,9]"],
    "linearity": [METHODS, *FEW, "sparsity=[50,90]"],
    "path_decoding": ["method=[neuron_mct,random]", "sparsity=50", "experiment.images=2", "experiment.steps=5"],
    "degradation": [MAPS, *FEW, "percent=[10,50]", "experiment.road.images=1"],
    "saliency": [MAPS, *FEW, "sparsity=[50,90]"],
    "sanity_checks": [MAPS, *FEW, "experiment.draws=2", "experiment.measures=[spearman,hog]"],
    "roar": [MAPS.replace("[gradients,gradcam,neuron_mct,random]", "neuron_mct"), "percent=30"],
    "roar_table": [
        "attribution=[gradients,neuron_mct]",
        "percent=[30]",
        "experiment.seeds=[0,1]",
        "experiment.side_by_side=1",
    ],
}


@pytest.fixture
def binary(job):
    def make(form: str, *settings: str):
        return job(*NETWORK, f"+model.form={form}", *settings, small=False)

    return make


@pytest.mark.parametrize(
    ("experiment", "form"),
    [
        *((name, "column") for name in EXPERIMENTS),
        # The shape (B,) counts where logits are read beside the library's functions.
        *((name, "flat") for name in ("train", "path_analysis", "path_decoding", "degradation")),
    ],
)
def test_one_logit_is_two_classes_to_every_experiment(binary, experiment, form):
    settings = [f"experiment={experiment}", *EXPERIMENTS[experiment]]
    one, two = (binary(shape, *settings).run() for shape in (form, "two"))
    columns = ["method", "metric", "x_name", "x", "n"]
    assert one[columns].equals(two[columns])
    # Of path decoding, the logit itself: z, where a network of two classes has z/2.
    factor = np.where(one.metric.str.startswith("response/"), 2.0, 1.0)
    np.testing.assert_allclose(one.value, factor * two.value, rtol=2e-3, atol=2e-4)
    assert one.value.notna().sum() > 0


def test_an_exact_zero_is_class_one(binary):
    made = binary("column")
    with torch.no_grad():
        made.model.out.weight.zero_()
        made.model.out.bias.zero_()
    batch = next(made.sample(2).batches(2))
    seen = predictions(made.model, batch)
    assert seen.target.tolist() == [1, 1]
    assert seen.probability.tolist() == [0.5, 0.5]
    assert all(title.startswith("predicted five or more\n(50 %)\ntrue ") for title in seen.titles)
