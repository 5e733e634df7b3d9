"""Real weights, real images: the library's own example against an oracle with a forward pass of its own."""

import copy
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import SqueezeNet1_0_Weights, squeezenet1_0

import cpath
from tests.oracles import contribution as oracle
from tests.oracles.networks import squeezenet1_0 as written_out

pytestmark = pytest.mark.real

TIGHT = {"rtol": 1e-7, "atol": 1e-10}


@pytest.fixture(scope="module")
def model(real_data: Path) -> nn.Module:
    model = squeezenet1_0(weights=None)
    model.load_state_dict(torch.load(real_data / "squeezenet1_0-imagenet.pth", weights_only=True))
    return model.double()  # left in train mode on purpose: dropout must not matter


@pytest.fixture(scope="module")
def images(real_data: Path) -> Tensor:
    preprocess = SqueezeNet1_0_Weights.IMAGENET1K_V1.transforms()
    with tarfile.open(real_data / "imagenet-sample.tar") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".JPEG"))
        files = [archive.extractfile(names[index]) for index in (0, 100)]
        return torch.stack([preprocess(Image.open(file).convert("RGB")) for file in files]).double()


@pytest.fixture(scope="module")
def weights(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def contributions(weights: dict[str, Tensor], images: Tensor) -> list[dict[str, Tensor]]:
    """Signed NeuronMCT contributions of each image, by the oracle."""
    logits, _ = oracle.run(written_out, weights, images)
    return [
        oracle.mct(written_out, weights, image, int(label))
        for image, label in zip(images, logits.argmax(1), strict=True)
    ]


EVERY = ("relu", "classifier.2")
"""All 26 ReLUs: the last, whose output is the map of the logits, is a site only if it is named."""


def keep(scores: dict[str, Tensor], k: int) -> Tensor:
    """Flat mask of the neurons above the k-th smallest score."""
    flat = torch.cat([values.abs().flatten() for values in scores.values()])
    return flat > max(flat.sort().values[k - 1].item(), 0.0)


def test_library_example_equals_oracle(model, images, weights, contributions):
    logits, seen = oracle.run(written_out, weights, images)
    pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90, sites=EVERY)
    assert list(pathway.masks) == list(seen)
    assert len(seen) == 26
    assert torch.equal(pathway.target, logits.argmax(1))
    neurons = sum(output[0].numel() for output in seen.values())
    assert pathway.layout.units == neurons == 4_346_248
    for mask, scores in zip(pathway.flat, contributions, strict=True):
        assert torch.equal(mask, keep(scores, -(-90 * neurons // 100)))
    # The restricted network, and its gradient.
    masked, _ = oracle.run(written_out, weights, images, masks=pathway.masks)
    with pathway.restrict(model), torch.no_grad():
        torch.testing.assert_close(model(images), masked, **TIGHT)
    source = images.clone().requires_grad_()
    masked, _ = oracle.run(written_out, weights, source, masks=pathway.masks)
    (gradient,) = torch.autograd.grad(masked.gather(1, pathway.target[:, None]).sum(), source)
    torch.testing.assert_close(cpath.pathway_gradient(model, images, pathway), gradient, **TIGHT)
    assert model.training


def test_the_map_of_the_logits_is_left_out_unless_it_is_named(model, images, contributions):
    with pytest.warns(cpath.OutputSiteWarning, match=r"classifier\.2"):  # once for each model
        scores = cpath.score(copy.deepcopy(model), images)
    assert list(scores.layout.shapes) == [name for name in contributions[0] if name != "classifier.2"]
    assert scores.left_out == ("classifier.2",)
    with torch.no_grad(), cpath.score(model, images, sites=EVERY).pathway(99).restrict(model):
        logits = model(images)
    # True by construction: only the target's logit gets contributions, so that every other one is pruned to 0.
    assert ((logits != 0).sum(1) == 1).all()
    with torch.no_grad(), scores.pathway(99).restrict(model):
        assert ((model(images) != 0).sum(1) > 100).all()


def test_neuron_mct_scores_equal_oracle(model, images, contributions):
    scores = cpath.score(model, images, sites=EVERY)
    for index, expected in enumerate(contributions):
        for name, values in expected.items():
            torch.testing.assert_close(scores.values[name][index], values.abs(), **TIGHT)
    with cpath.observe(model) as seen, torch.no_grad():
        model(images)
    assert scores.pathway(90).dead_share(seen.activations).tolist() == [0, 0]


def test_neuron_intgrad_equals_oracle(model, images, weights):
    image = images[:1]
    scores = cpath.score(model, image, cpath.methods.NeuronIntGrad(rule="midpoint", nodes=5), sites=EVERY)
    label = int(scores.target[0])
    for site in ("features.7.expand3x3_activation", "features.12.squeeze_activation", "classifier.2"):
        expected = oracle.intgrad(written_out, weights, images[0], label, site, oracle.MIDPOINT_5)
        torch.testing.assert_close(scores.values[site][0], expected.abs(), **TIGHT)
        residual = oracle.residual(written_out, weights, images[0], label, site, expected)
        assert float(scores.residual[site][0]) == pytest.approx(residual, rel=1e-4, abs=1e-9)
    assert 0.005 < float(torch.stack(list(scores.residual.values())).mean()) < 0.1  # measured: 0.012 to 0.06


@pytest.mark.slow
def test_neuron_intgrad_pathway_equals_oracle_at_every_site(model, images, weights):
    scores = cpath.score(model, images[:1], cpath.methods.NeuronIntGrad(rule="midpoint", nodes=5), sites=EVERY)
    label = int(scores.target[0])
    expected = {
        site: oracle.intgrad(written_out, weights, images[0], label, site, oracle.MIDPOINT_5)
        for site in scores.values
    }
    neurons = scores.layout.units
    assert torch.equal(scores.pathway(90).flat[0], keep(expected, -(-90 * neurons // 100)))
