"""Activation checkpointing runs parts of a model again in the backward pass, where no site is seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.checkpoint import checkpoint

import cpath
from tests import zoo

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


class Parts(nn.Module):
    """Modules and methods that are checkpointed, unless ``reentrant`` is None, with ReLUs of every kind in them."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1)
        self.block = zoo.Block(4, inplace=True)
        self.fc = nn.Linear(4, zoo.CLASSES)
        self.reentrant = reentrant

    def _run(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return part(x) if self.reentrant is None else checkpoint(part, x, use_reentrant=self.reentrant)

    def _middle(self, x: Tensor) -> Tensor:
        return F.relu(self.conv3(self.relu(self.conv2(x)) - 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = self._run(self._middle, self.relu(self.conv1(x)))
        return self.fc(self._run(self.block, x).mean((2, 3)))


def parts(reentrant: bool | None) -> nn.Module:
    return zoo.make(lambda: Parts(reentrant), torch.float64)


@pytest.fixture
def double() -> Tensor:
    return zoo.images(dtype=torch.float64)


def test_checkpointed_models_are_scored_as_others(method, double):
    expected = cpath.score(parts(None), double, method)
    assert list(expected.values) == ["relu", "relu#2", ":relu", "block.relu", "block.relu#2"]
    model = parts(False)
    with zoo.untouched(model):
        found = cpath.score(model, double, method)
    assert list(found.values) == list(expected.values)
    torch.testing.assert_close(found.flat, expected.flat, **CLOSE)


def test_gradients_of_restricted_checkpointed_models_are_those_of_others(double):
    pathway = cpath.find_pathway(parts(None), double, sparsity=60)
    expected = cpath.pathway_gradient(parts(None), double, pathway)
    model = parts(False)
    torch.testing.assert_close(cpath.pathway_gradient(model, double, pathway), expected, **CLOSE)
    source = double.clone().requires_grad_()
    with pathway.restrict(model):
        logits = model(source)
    logits.gather(1, pathway.target[:, None]).sum().backward()  # after the end of the restriction
    torch.testing.assert_close(source.grad, expected, **CLOSE)


def test_other_activations_are_masked_where_they_are_checkpointed(double):
    class Gelu(Parts):
        def _middle(self, x: Tensor) -> Tensor:
            return F.gelu(self.conv3(F.gelu(self.conv2(x))))

    found = [
        cpath.score(
            zoo.make(lambda reentrant=reentrant: Gelu(reentrant), torch.float64),
            double,
            zoo.quick("greedy"),
            sites="gelu",
        ).flat
        for reentrant in (None, False)
    ]
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_tensors_that_the_caller_has_saved_elsewhere_change_nothing(double):
    expected = cpath.score(parts(None), double, zoo.quick("greedy")).flat
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x):
        found = cpath.score(parts(None), double, zoo.quick("greedy")).flat
    assert torch.equal(found, expected)


def test_reentrant_checkpointing_is_refused_where_it_hides_gradients(method, double):
    if method.name in ("random", "active"):  # they need none
        expected = cpath.score(parts(None), double, method).flat
        assert torch.equal(cpath.score(parts(True), double, method).flat, expected)
        return
    with pytest.raises(cpath.SiteError, match=r"use_reentrant=True"):
        cpath.score(parts(True), double, method)


def test_gates_that_would_get_no_gradient_are_refused(double):
    class Early(Parts):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self._run(self._middle, self.conv1(x)).mean((2, 3)))

    model = zoo.make(lambda: Early(True), torch.float64).requires_grad_(False)
    with pytest.raises(cpath.SiteError, match=r"site 'relu' runs where gradients.*use_reentrant=True"):
        cpath.score(model, double, zoo.quick("dgr"))


def test_gradients_of_another_network_than_the_restricted_one_are_refused(double):
    model, pathway = parts(True), cpath.find_pathway(parts(None), double, sparsity=60)
    plain = parts(None)
    with pathway.restrict(plain), torch.no_grad():
        expected = plain(double)
    with pathway.restrict(model), torch.no_grad():
        assert torch.equal(model(double), expected)
    model.requires_grad_(False)
    with pathway.restrict(model):  # nothing has gradients
        assert torch.equal(model(double), expected)
    message = r"checkpoints activations with use_reentrant=True.*pass use_reentrant=False"
    with pytest.raises(cpath.SiteError, match=message):
        cpath.pathway_gradient(model, double, pathway)
    model.requires_grad_(True)
    with pytest.raises(cpath.SiteError, match=message), pathway.restrict(model):
        model(double)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_backward_pass_runs_again_is_not_observed(reentrant, double):
    model = parts(reentrant)
    with cpath.observe(model) as seen:
        loss = model(double).sum()
        before = {name: output.clone() for name, output in seen.activations.items()}
        torch.autograd.backward(get_gradient_edge(loss))  # which modes do not see, unlike loss.backward()
    assert list(seen.activations) == list(before)
    assert all(torch.equal(seen.activations[name], output) for name, output in before.items())


def test_memory_efficient_densenet_is_pruned_as_the_plain_one():
    images, found = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), []
    for efficient in (False, True):
        torch.manual_seed(0)
        model = tv.densenet121(weights=None, memory_efficient=efficient).eval()
        found.append(cpath.score(model, images, cpath.methods.Greedy(rounds=2)))
    assert len(found[0].values) == 121
    assert torch.equal(found[1].flat, found[0].flat)
