from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from tests import zoo
from tests.attribution.networks import predicted
from tests.oracles import attribution as oracle


def test_star_is_the_channel_sum_of_neuron_intgrad(images64: Tensor) -> None:
    model = zoo.make("functional", torch.float64)
    probe = cpath.Probe(model, images64)
    values = cpath.methods.NeuronIntGrad().contributions(probe).values["body:relu"]
    expected = F.interpolate(values.sum(1, keepdim=True).clamp(min=0), (8, 8), mode="bilinear")
    found = cpath.attribute(model, images64, "neuron_intgrad_star", site="body:relu")
    assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("method", ["neuron_mct", "neuron_intgrad"])
def test_pathway_gradients(method: str, model64: nn.Module, images64: Tensor) -> None:
    pathway = cpath.find_pathway(model64, images64, method, 70)
    masks = list(pathway.masks.values())
    expected = [
        oracle.gradient(model64, images64[i], c, lambda number, z, i=i: z * masks[number][i])
        for i, c in enumerate(predicted(model64, images64))
    ]
    found = cpath.attribute(model64, images64, method, sparsity=70)
    assert torch.allclose(found, torch.stack(expected), atol=1e-12)
    assert torch.equal(cpath.attribute(model64, images64, cpath.methods.get(method), sparsity=70), found)


def test_pathway_gradient_takes_the_target_of_the_pathway() -> None:
    model, images = zoo.make("residual"), zoo.images()
    pathway = cpath.find_pathway(model, images, "neuron_mct", 50, target=3)
    assert torch.equal(
        cpath.pathway_gradient(model, images, pathway), cpath.pathway_gradient(model, images, pathway, 3)
    )
    with pytest.raises(cpath.InputError, match="no class"):
        cpath.pathway_gradient(model, images, pathway, zoo.CLASSES)
    with pytest.raises(cpath.MaskError, match="belongs to 3 inputs"):
        cpath.pathway_gradient(model, images[:2], pathway)
