from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import cpath
from cpath.methods import NeuronIntGrad
from cpath.replay import Replay
from tests import zoo

AWKWARD = (zoo.InplaceSkip, zoo.Discarding, zoo.Normalising)


def record(model: nn.Module, images: Tensor) -> Replay:
    return Replay.record(lambda some: model(some.clone()), images)


class TwoSites(nn.Module):
    """Two sites behind a convolution each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv2(F.relu(self.conv(x)))).mean((2, 3)))


@pytest.mark.parametrize("name", [*zoo.MODELS, *AWKWARD])
@pytest.mark.parametrize("where", [slice(0, 3), slice(1, 3), torch.tensor([2, 0])])
def test_a_replayed_pass_gives_the_same(name, where):
    model, images = zoo.make(name, torch.float64), zoo.images(dtype=torch.float64)
    replay = record(model, images).part(where)
    with torch.no_grad():
        expected = model(images[where].clone())
        for _ in range(2):  # what the model does to the outputs must not reach the memory
            with replay.handing_out():
                torch.testing.assert_close(model(images[where].clone()), expected, rtol=1e-12, atol=1e-12)


def test_it_is_answered_from_memory_until_told_to_stop():
    model, images = zoo.make(TwoSites), zoo.images()
    replay = record(model, images)
    with torch.no_grad():
        before = model(images)
        model.conv.weight.zero_()
        model.conv2.weight.zero_()
        assert not torch.allclose(model(images), before)
        with replay.handing_out():
            assert torch.equal(model(images), before)
        with replay.handing_out() as memory:
            stopping = model.conv.register_forward_hook(lambda *_: memory.stop())
            late = model(images)
        stopping.remove()
        assert torch.equal(late, model(images))


def test_rows_that_are_no_images_are_computed():
    class Transposed(nn.Module):
        """Its linear layer has a row a colour: three, as there are images."""

        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(64, 64)
            self.fc = nn.Linear(3, zoo.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.mix(x.flatten(2).transpose(0, 1))  # (3, B, 64)
            return self.fc(F.relu(rows).transpose(0, 1).mean(2))

    model, images = zoo.make(Transposed), zoo.images()
    replay = record(model, images).part(slice(1, 2))
    with torch.no_grad(), replay.handing_out():
        torch.testing.assert_close(model(images[1:2]), model(images)[1:2])


def test_another_run_than_the_recorded_one_is_computed():
    model, other, images = zoo.make("residual"), zoo.make("functional"), zoo.images()
    with torch.no_grad():
        expected = other(images.clone())
        with record(model, images).handing_out():
            assert torch.equal(other(images.clone()), expected)


class Convolutions(TorchDispatchMode):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.runs = weight, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default and args[1] is self.weight:
            self.runs += 1
        return func(*args, **(kwargs or {}))


def test_operations_before_the_site_do_not_run_again_for_any_site_or_node():
    model, images = zoo.make(TwoSites), zoo.images()
    runs = []
    for nodes, max_batch in ((3, 64), (5, 64), (5, 6)):
        with Convolutions(model.conv.weight) as counting:
            cpath.score(model, images, NeuronIntGrad(nodes=nodes), max_batch=max_batch)
        runs.append(counting.runs)
    # Once for the record, twice to learn of in-place activations, and twice to remember; at first twice to look.
    assert runs == [7, 5, 5]


class Swapped(nn.Module):
    """Two normalisations behind one convolution, the order of which can be changed."""

    def __init__(self, norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norms = nn.ModuleList([norm(), norm()])
        self.fc = nn.Linear(4, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for norm in self.norms:
            x = norm(x)
        return self.fc(F.relu(x).mean((2, 3)))


@pytest.mark.parametrize("norm", [lambda: nn.BatchNorm2d(4), lambda: nn.LayerNorm([4, 6, 6])])
def test_normalisations_are_known_by_their_weights(norm):
    model, images = zoo.make(lambda: Swapped(norm), torch.float64), zoo.images(dtype=torch.float64)
    nn.init.uniform_(model.norms[0].weight, 2, 3)
    replay = record(model, images)
    with torch.no_grad():
        before = model(images)
        model.norms = nn.ModuleList(reversed(model.norms))
        expected = model(images)
        assert not torch.allclose(before, expected)
        with replay.handing_out():
            torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)


def test_all_that_lies_before_a_site_is_answered_from_memory_and_what_lies_behind_it_is_not():
    model, images = zoo.make(TwoSites), zoo.images()
    probe = cpath.Probe(model, images)
    sites = probe.record(gradients=False).activations
    known = probe.remembering()
    runs = {}
    for site, z in sites.items():
        values = torch.stack([z, z / 2])
        known.responses(site, values)  # learns of in-place activations
        for name in ("conv", "conv2"):
            with Convolutions(getattr(model, name).weight) as counting:
                known.responses(site, values)
            runs[site, name] = counting.runs
    first, second = sites
    assert runs == {(first, "conv"): 0, (first, "conv2"): 1, (second, "conv"): 0, (second, "conv2"): 0}


class Attending(nn.Module):
    """Two layers of torch's attention, with ReLUs, over the rows of an image."""

    def __init__(self, batch_first: bool, need_weights: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.layer(batch_first) for _ in range(2))
        self.fc = nn.Linear(24, zoo.CLASSES)
        self.batch_first, self.need_weights = batch_first, need_weights

    @staticmethod
    def layer(batch_first: bool) -> nn.ModuleDict:
        attention = nn.MultiheadAttention(24, 3, batch_first=batch_first)
        return nn.ModuleDict({"attention": attention, "fc": nn.Linear(24, 24), "gelu": nn.GELU()})

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2).flatten(2)  # a token a row
        for layer in self.layers:
            x = x if self.batch_first else x.transpose(0, 1)
            x = x + layer["attention"](x, x, x, need_weights=self.need_weights)[0]
            x = x if self.batch_first else x.transpose(0, 1)
            x = x + F.relu(layer["gelu"](layer["fc"](x)))
        return self.fc(x.mean(1))


@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 2), torch.tensor([2, 0])])
@pytest.mark.parametrize("sites", ["relu", "attention"])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_what_torchs_own_attention_consists_of_is_answered_too(batch_first, need_weights, sites, rows):
    model = zoo.make(lambda: Attending(batch_first, need_weights), torch.float64)
    images = zoo.images(dtype=torch.float64)
    probe = cpath.Probe(model, images, sites=sites)
    z = list(probe.record(gradients=False).activations.items())[-1]
    values = torch.stack([z[1], z[1] / 2])
    expected = probe.responses(z[0], values)
    known = probe.remembering().part(rows)
    with torch.no_grad():
        for parameter in model.layers[0].parameters():
            parameter.zero_()
    assert not torch.allclose(probe.responses(z[0], values), expected)
    found = known.responses(z[0], values[:, rows])
    torch.testing.assert_close(found, expected[:, rows], rtol=1e-12, atol=1e-12)


def test_one_input_is_answered_wherever_its_numbers_are():
    model, images = zoo.make(lambda: Attending(False, True)), zoo.images()[:1]
    replay = record(model, images)
    with torch.no_grad():
        expected = model(images)
        for parameter in model.parameters():
            parameter.zero_()
        with replay.part(slice(0, 1)).handing_out():
            assert torch.equal(model(images), expected)
        for rows in (torch.tensor([0, 0]), torch.tensor([True])):
            with replay.part(rows).handing_out():
                assert torch.equal(model(images), expected) is (rows.dtype == torch.bool)


def test_inputs_that_cannot_be_told_apart_are_computed():
    class Same(nn.Module):
        """Its product has rows of two tokens and three inputs; all tokens of an input are the same."""

        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(64, 64)
            self.fc = nn.Linear(64, zoo.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.mix(x.mean(1, keepdim=True).flatten(2).repeat(1, 2, 1).transpose(0, 1).flatten(0, 1))
            return self.fc(F.relu(tokens.unflatten(0, (2, len(x)))[0]))

    model, images = zoo.make(Same), zoo.images()
    images[1] = images[0]  # so that both orders of tokens and inputs fit the first input
    replay = record(model, images).part(slice(1, 3))
    with torch.no_grad(), replay.handing_out():
        torch.testing.assert_close(model(images[1:]), model(images)[1:])


class Routed(nn.Module):
    """Sends the pixels of an image to one of two layers, by their brightness."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Linear(3, 4)
        self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.fc = nn.Linear(4, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        h = F.relu(self.first(pixels))
        mixed = torch.zeros_like(h)
        for number, expert in enumerate(self.experts):
            where = (pixels.sum(2) > 0) == bool(number)
            if self.how == "boolean":
                mixed[where] = expert(h[where])
            elif self.how == "nonzero":
                places = where.nonzero(as_tuple=True)
                mixed[places] = expert(h[places])
            else:
                order = where.flatten().int().argsort(descending=True, stable=True)[: where.sum().item()]
                rows = expert(h.flatten(0, 1).index_select(0, order))
                mixed = mixed.flatten(0, 1).index_copy(0, order, rows).view_as(h)
        return self.fc(F.relu(h + mixed).mean(1))


def routed_images(dtype: torch.dtype) -> Tensor:
    """Images of which 2, 3, 2 and 1 pixels of 4 are bright: 4 times as many as of the first, but others of each."""
    images = -1 - torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    for image, bright in zip(images, (2, 3, 2, 1), strict=True):
        image.flatten(1)[:, :bright] *= -1
    return images


@pytest.mark.parametrize("how", ["boolean", "nonzero", "item"])
def test_rows_that_inputs_do_not_have_equally_many_of_are_not_divided_among_them(how):
    model, images = zoo.make(lambda: Routed(how), torch.float64), routed_images(torch.float64)
    whole = record(model, images)
    for rows in (slice(1, 2), slice(2, 3), slice(3, 4), slice(2, 4), torch.tensor([3, 0])):
        with torch.no_grad(), whole.part(rows).handing_out():
            torch.testing.assert_close(model(images[rows]), model(images)[rows], rtol=1e-12, atol=1e-12)
    alone = torch.cat([cpath.score(model, image, NeuronIntGrad(nodes=3)).flat for image in images.split(1)])
    for max_batch in (3, 6, 64):
        scores = cpath.score(model, images, NeuronIntGrad(nodes=3), max_batch=max_batch)
        torch.testing.assert_close(scores.flat, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("error", [AssertionError, TypeError, ZeroDivisionError, RuntimeError])
def test_a_model_that_refuses_one_input_alone_is_scored_without_memory(error):
    class Batches(TwoSites):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) != 3:
                raise error("made for three")
            return super().forward(x)

    model, images = zoo.make(Batches), zoo.images()
    scores = cpath.score(model, images, NeuronIntGrad(nodes=3))
    expected = cpath.score(zoo.make(TwoSites), images, NeuronIntGrad(nodes=3))
    torch.testing.assert_close(scores.flat, expected.flat)
