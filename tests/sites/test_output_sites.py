"""Sites behind which no parameter takes part: left out, said once, named to be included."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import cpath
from tests import zoo


def told(run: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [warning for warning in caught if warning.category is cpath.OutputSiteWarning]


@pytest.fixture
def images() -> Tensor:
    return zoo.images(dtype=torch.float64)


# The model's last ReLU gives the map of logits


def test_the_map_of_logits_is_left_out_and_that_is_said_once(images, method):
    model = zoo.make(zoo.headless, torch.float64)
    (warning,) = told(lambda: cpath.score(model, images, method))
    assert warning.filename == __file__
    assert warning.message.left_out == ("6",)
    assert "site '6' is left out: no parameter" in str(warning.message)
    assert "name it: sites=('relu', '6')" in str(warning.message)
    assert told(lambda: cpath.score(model, images, method)) == []
    assert told(lambda: cpath.attribute(model, images, "gbp")) == []
    scores = cpath.score(model, images, method)
    assert scores.left_out == ("6",)
    # The same scores as those of a network that ends before that ReLU, and goes on without a site.
    other = copy.deepcopy(model)
    other[6] = Clamp()
    expected = cpath.score(other, images, method)
    assert list(scores.values) == list(expected.values)
    torch.testing.assert_close(scores.flat, expected.flat, rtol=1e-9, atol=1e-12)


def test_what_works_with_a_pathway_or_no_site_says_nothing_of_left_out_ones(images):
    model = zoo.make(zoo.headless, torch.float64)
    pathway = cpath.find_pathway(model, images, sparsity=50, sites=("relu", "6"))
    assert "6" in pathway.masks
    fresh = copy.deepcopy(model)
    assert told(lambda: cpath.pathway_gradient(fresh, images, pathway)) == []
    maps = cpath.attribution.single_channel(torch.rand_like(images))
    assert told(lambda: cpath.evaluation.degrade(fresh, images, maps, percent=[10])) == []


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


def test_a_restricted_network_keeps_the_output_site_whole(images, tmp_path):
    model = zoo.make(zoo.headless, torch.float64)
    pathway = cpath.find_pathway(model, images, sparsity=50)
    pathway.save(tmp_path / "pathway")
    assert pathway.left_out == ("6",)
    assert "6" not in pathway.masks
    hidden = images
    for index, module in enumerate(model[:6]):
        if isinstance(module, zoo.Fire):
            squeezed = F.relu(module.squeeze(hidden)) * pathway.masks[f"{index}.squeeze_activation"]
            branches = [
                F.relu(getattr(module, name)(squeezed)) * pathway.masks[f"{index}.{name}_activation"]
                for name in ("expand1x1", "expand3x3")
            ]
            hidden = torch.cat(branches, 1)
        else:
            hidden = F.relu(hidden) * pathway.masks["1"] if index == 1 else module(hidden)
    expected = hidden.clamp(min=0).mean((2, 3))
    for each in (model, zoo.make(zoo.headless, torch.float64)):  # the second was never looked at
        for one in (pathway, cpath.Pathway.load(tmp_path / "pathway")):
            with one.restrict(each) as reached:
                torch.testing.assert_close(each(images), expected)
            assert reached == set(pathway.masks)


@pytest.mark.parametrize("sites", [("relu", "6"), nn.ReLU, "ReLU", ("relu", "?"), ("6", "relu")])
def test_a_site_that_is_named_is_included(sites, images):
    model = zoo.make(zoo.headless, torch.float64)
    assert told(lambda: cpath.score(model, images, sites=sites)) == []
    scores = cpath.score(model, images, "active", sites=sites)
    assert scores.left_out == ()
    assert torch.equal(scores.values["6"], (model[:7](images) > 0).double())


def test_observations_have_output_sites(images):
    model = zoo.make(zoo.headless, torch.float64)
    cpath.score(model, images)
    with cpath.observe(model) as seen:
        model(images)
    assert torch.equal(seen.activations["6"], model[:7](images).detach())


def test_a_model_with_no_other_site_is_refused_with_what_to_do(images):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    with (
        pytest.warns(cpath.OutputSiteWarning, match=r"name it: sites=\('relu', '1'\)"),
        pytest.raises(
            cpath.SiteError, match=r"no site found.*but at 1, behind which no parameter.*unless you name"
        ),
    ):
        cpath.score(model, images)
    scores = cpath.score(model, images, target=2, sites=("relu", "1"))
    expected = torch.zeros(3, 5, 6, 6, dtype=torch.float64)
    expected[:, 2] = F.relu(model[0](images))[:, 2].detach() / 36
    torch.testing.assert_close(scores.values["1"], expected)


# What counts as a parameter behind a site


class Head(nn.Module):
    """relu(conv(x)) and what a function makes of it."""

    def __init__(self, head: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.fc = nn.Linear(5, 5)
        self.normed = weight_norm(nn.Linear(5, 5))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.temperature = nn.Parameter(torch.ones(1))
        self.weight = nn.Parameter(torch.randn(5, 5))
        self.mha = nn.MultiheadAttention(5, 1, batch_first=True)
        self.gru = nn.GRU(5, 5, batch_first=True)
        self.register_buffer("prototypes", torch.randn(7, 5))
        self.register_buffer("prior", torch.randn(5))
        self.kept = torch.randn(5, 5).double()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self, F.relu(self.conv(x)))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def scattered(model: Head, x: Tensor) -> Tensor:
    out = x.new_zeros(len(x), 5)
    out[:, :] = pooled(x)
    return out


HIDDEN: dict[str, Callable[[Head, Tensor], Tensor]] = {
    "a layer": lambda m, x: m.fc(pooled(x)),
    "a functional head": lambda m, x: F.linear(pooled(x), m.weight),
    "an operator": lambda m, x: pooled(x) @ m.weight,
    "the product the other way round": lambda m, x: (m.weight.T @ pooled(x).T).T,
    "a view of a parameter": lambda m, x: pooled(x) @ m.weight.T[:, :3],
    "a weight computed from parameters": lambda m, x: pooled(x) @ F.normalize(m.weight, dim=0),
    "a parametrisation": lambda m, x: m.normed(pooled(x)),
    "weights tied to an earlier layer": lambda m, x: pooled(x) @ m.conv.weight.mean((2, 3)),
    "an elementwise weight": lambda m, x: pooled(x) * m.weight[0],
    "attention": lambda m, x: m.mha(*[x.flatten(2).transpose(1, 2)] * 3)[0].mean(1),
    "a recurrent layer": lambda m, x: m.gru(x.flatten(2).transpose(1, 2))[0][:, -1],
    "buffers as weights": lambda m, x: pooled(x) @ m.prototypes.T,
    "cosines with buffers": lambda m, x: F.linear(F.normalize(pooled(x)), F.normalize(m.prototypes)),
    "a plain tensor as weights": lambda m, x: F.linear(pooled(x), m.kept),
    "a layer in one of two branches": lambda m, x: pooled(x) + m.fc(pooled(x)),
    "a layer behind an assignment": lambda m, x: m.fc(scattered(m, x)),
    "a layer behind operations in place": lambda m, x: m.fc(pooled(x).mul_(2).add_(1)),
    "a layer behind numpy": lambda m, x: m.fc(torch.from_numpy(pooled(x).detach().numpy())),
}
BARE: dict[str, Callable[[Head, Tensor], Tensor]] = {
    "pooling": lambda m, x: pooled(x),
    "pooling and softmax": lambda m, x: pooled(x).softmax(1).log(),
    "a temperature": lambda m, x: pooled(x) * m.scale / m.temperature,
    "an offset": lambda m, x: pooled(x) - m.prior,
    "a constant": lambda m, x: pooled(x) @ torch.eye(5, dtype=x.dtype),
    "an assignment": scattered,
    "operations in place": lambda m, x: pooled(x).mul_(2).add_(1),
    "another output": lambda m, x: (m.fc(torch.ones(len(x), 5, dtype=x.dtype)), pooled(x))[1],
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("head", list(HIDDEN))
def test_a_parameter_behind_a_site_makes_it_hidden(head, frozen, images):
    model = zoo.make(lambda: Head(HIDDEN[head]), torch.float64).requires_grad_(not frozen)
    assert told(lambda: cpath.score(model, images, "active")) == []
    assert list(cpath.score(model, images, "active").values) == [":relu"]


@pytest.mark.parametrize("head", list(BARE))
def test_a_site_without_a_parameter_behind_it_is_an_output_site(head, images):
    model = zoo.make(lambda: Head(BARE[head]), torch.float64)
    with (
        pytest.warns(cpath.OutputSiteWarning, match=r"sites=\('relu', ':relu'\)"),
        pytest.raises(cpath.SiteError, match="behind which no parameter"),
    ):
        cpath.score(model, images)
    assert told(lambda: cpath.score(model, images, "active", sites=("relu", ":relu"))) == []


def test_every_site_of_the_last_layers_is_judged_on_its_own(images):
    def head(model: Head, x: Tensor) -> Tensor:
        early = torch.relu(x - 0.1)  # goes through the layer
        late = torch.relu(model.fc(pooled(early)))
        return late + F.relu(pooled(x))  # a branch around it

    model = zoo.make(lambda: Head(head), torch.float64)
    (warning,) = told(lambda: cpath.score(model, images))
    assert warning.message.left_out == (":relu#3", ":relu#4")
    assert list(cpath.score(model, images).values) == [":relu", ":relu#2"]
    assert str(warning.message).startswith("sites ':relu#3', ':relu#4' are left out")
    assert list(cpath.score(model, images, sites=("relu", ":relu", "!*#4")).values) == [
        *(":relu", ":relu#2", ":relu#3"),
    ]


ARCHITECTURES: dict[str, tuple[object, tuple[str, ...]]] = {
    "squeezenet1_0": ("relu", ("classifier.2",)),
    "squeezenet1_1": ("relu", ("classifier.2",)),
    "resnet18": ("relu", ()),
    "vgg11": ("relu", ()),
    "densenet121": ("relu", ()),
    "mobilenet_v2": ("relu6", ()),
    "mobilenet_v3_small": (("hardswish", "relu", "hardsigmoid"), ()),
    "shufflenet_v2_x0_5": ("relu", ()),
    "efficientnet_b0": (("silu", "sigmoid"), ()),
    "convnext_tiny": ("gelu", ()),
}


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_output_sites_of_torchvision_models(architecture):
    sites, expected = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    model = getattr(tv, architecture)(num_classes=5).eval()
    scores = []
    warned = told(lambda: scores.append(cpath.score(model, torch.randn(1, 3, 64, 64), "active", sites=sites)))
    assert scores[0].left_out == expected
    assert [warning.message.left_out for warning in warned] == ([expected] if expected else [])


def test_the_default_site_of_a_map_is_not_the_map_of_logits(images):
    model = zoo.make(zoo.headless, torch.float64)
    site = cpath.attribution.ResponseProbe(model, images).spatial_sites(None)
    assert site == ("4.expand1x1_activation", "4.expand3x3_activation")


def test_the_look_costs_three_passes_and_no_memory_of_the_model(images):
    calls = []

    def head(model: Head, x: Tensor) -> Tensor:
        calls.append(len(x))
        return model.fc(pooled(x))

    model = zoo.make(lambda: Head(head), torch.float64)
    before = set(vars(model))
    cpath.score(model, images, "active")
    assert calls == [1, 2, 3]  # one input, a pair, and the pass of the method
    assert set(vars(model)) == before
    assert math.prod(cpath.score(model, images, "active").flat.shape) == 3 * 5 * 64
