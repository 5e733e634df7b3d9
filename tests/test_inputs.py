"""Inputs of every structure: tuples and mappings, further tensors, any number of dimensions, what is refused."""

from __future__ import annotations

import zlib
from collections import OrderedDict, namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.inputs import Inputs
from cpath.randomness import seeded
from tests import zoo

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
BY_CAPTUM = {"rtol": 1e-6, "atol": 1e-8}  # whose nodes are float32
NEED_IMAGES = ("gradcam", "neuron_intgrad_star", "sobel")


class Conditioned(nn.Module):
    """A network of an image, a vector and the number of a row of a table, with a scale and a word for all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.table = nn.Embedding(7, 2)
        self.hidden = nn.Linear(4 + 2 + 2, 6)
        self.fc = nn.Linear(6, zoo.CLASSES)
        self.calls = 0

    def forward(
        self, images: Tensor, more: dict[str, Tensor], scale: Tensor | float = 1.0, how: str = "mean"
    ) -> Tensor:
        self.calls += 1
        x = F.relu(self.conv(images))
        x = x.mean((2, 3)) if how == "mean" else x.amax((2, 3))
        x = torch.cat([x, more["vector"] * scale, self.table(more["row"])], 1)
        return self.fc(F.relu(self.hidden(x)))


def conditioned() -> Conditioned:
    model = zoo.make(Conditioned, torch.float64)
    with torch.no_grad():
        model.hidden.bias += 0.5
    return model


def given() -> tuple[Tensor, dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(5)
    vector = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    return zoo.images(dtype=torch.float64), {"vector": vector, "row": torch.tensor([4, 0, 6])}, torch.tensor(2.0)


def row(inputs: tuple[Tensor, dict[str, Tensor], Tensor], number: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    images, more, scale = inputs
    part = slice(number, number + 1)
    return images[part], {key: value[part] for key, value in more.items()}, scale


class Bound(nn.Module):
    """The same network with all but the image bound in it."""

    def __init__(self, model: Conditioned, more: dict[str, Tensor], scale: Tensor) -> None:
        super().__init__()
        self.model, self.more, self.scale = model, more, scale

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images, self.more, self.scale)


# Every method and attribution, on more than one tensor


DRAWN = {"random", "dgr_random_init", "learned_ranking"}  # from the bytes of all tensors


def test_scores_of_several_tensors_are_those_of_each_input_with_the_rest_bound_in_the_model(method):
    model = conditioned()
    whole = cpath.score(model, given(), method)
    for number in range(3):
        image, *rest = row(given(), number)
        alone = cpath.score(model, (image, *rest), method)
        torch.testing.assert_close(alone.flat, whole[number].flat, **CLOSE)
        if method.name not in DRAWN:
            bound = cpath.score(Bound(model, *rest), image, method)
            torch.testing.assert_close(bound.flat, alone.flat, **CLOSE)
    small = cpath.score(model, given(), method, max_batch=2)
    torch.testing.assert_close(small.flat, whole.flat, **CLOSE)


@pytest.mark.parametrize("name", cpath.attribution.names())
def test_attributions_of_several_tensors_have_their_structure_and_are_those_of_each_input(name):
    model, one = conditioned(), zoo.quick_attribution(name)
    images, more, scale = cpath.attribute(model, given(), one)
    assert scale is None
    assert more["row"] is None
    per_pixel = name in NEED_IMAGES
    assert images.shape == ((3, 1, 8, 8) if per_pixel else (3, 3, 8, 8))
    assert images.count_nonzero() > 0
    assert more["vector"] is None if per_pixel else more["vector"].shape == (3, 2)
    for number in range(3):
        alone, rest, _ = cpath.attribute(model, row(given(), number), one)
        torch.testing.assert_close(alone, images[number : number + 1], **CLOSE)
        if not per_pixel:
            torch.testing.assert_close(rest["vector"], more["vector"][number : number + 1], **CLOSE)
    small = cpath.attribute(model, given(), one, max_batch=2)
    torch.testing.assert_close(small[0], images, **CLOSE)


def test_gradients_of_several_tensors_equal_plain_autograd():
    model = conditioned()
    images, more, scale = given()
    leaves = images.clone().requires_grad_(), more["vector"].clone().requires_grad_()
    logits = model(leaves[0], {"vector": leaves[1], "row": more["row"]}, scale)
    expected = torch.autograd.grad(logits[:, 2].sum(), leaves)
    found = cpath.attribute(model, given(), "gradients", 2)
    product = cpath.attribute(model, given(), "input_mct", 2)
    for values, times, right, source in zip(
        (found[0], found[1]["vector"]), (product[0], product[1]["vector"]), expected, leaves, strict=True
    ):
        torch.testing.assert_close(values, right, **CLOSE)
        torch.testing.assert_close(times, (right * source).detach(), **CLOSE)


def test_integrated_gradients_of_several_tensors_sum_to_the_rise_of_the_response():
    model = conditioned()
    images, more, scale = given()
    found = cpath.attribute(model, given(), "input_intgrad", 2, nodes=2000, rule="midpoint")
    empty = model(0 * images, {"vector": 0 * more["vector"], "row": more["row"]}, scale)
    rise = (model(images, more, scale) - empty)[:, 2].detach()
    total = found[0].flatten(1).sum(1) + found[1]["vector"].sum(1)
    torch.testing.assert_close(total, rise, rtol=1e-3, atol=1e-3)


def test_gradcam_of_an_image_with_a_second_input_equals_that_with_it_bound():
    model = conditioned()
    for name in ("gradcam", "neuron_intgrad_star"):
        found, _, _ = cpath.attribute(model, given(), name)
        for number in range(3):
            image, *rest = row(given(), number)
            expected = cpath.attribute(Bound(model, *rest), image, name)
            torch.testing.assert_close(found[number : number + 1], expected, **CLOSE)


def test_a_model_that_holds_something_of_each_input_is_run_on_the_whole_batch():
    model = conditioned()
    images, *rest = given()
    bound = Bound(model, *rest)
    for name in ("neuron_mct", "neuron_intgrad", "greedy", "dgr"):
        method = zoo.quick(name)
        torch.testing.assert_close(
            cpath.score(bound, images, method).flat, cpath.score(model, given(), method).flat, **CLOSE
        )
    for name in ("gradients", "gradcam", "gbp", "neuron_intgrad_star", "neuron_mct"):
        one = zoo.quick_attribution(name)
        expected = cpath.attribute(model, given(), one)[0]
        torch.testing.assert_close(cpath.attribute(bound, images, one), expected, **CLOSE)
    assert cpath.attribute(bound, images, "smoothgrad", samples=3).shape == images.shape
    path = cpath.attribute(bound, images, "input_intgrad", nodes=3)
    torch.testing.assert_close(path, _integrated(bound, images, 3), **BY_CAPTUM)


def _integrated(model: nn.Module, images: Tensor, nodes: int) -> Tensor:
    labels = model(images).argmax(1)
    points = {1: [(0.5, 1.0)], 3: [(0.5 - 0.6**0.5 / 2, 5 / 18), (0.5, 8 / 18), (0.5 + 0.6**0.5 / 2, 5 / 18)]}
    total = torch.zeros_like(images)
    for node, weight in points[nodes]:
        leaf = (node * images).requires_grad_()
        total += weight * torch.autograd.grad(model(leaf)[range(len(images)), labels].sum(), leaf)[0]
    return images * total


# Structures


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: {"x": x}, lambda x: OrderedDict(x=x)])
def test_a_tensor_in_a_tuple_or_mapping_is_that_tensor(wrap, images):
    model = zoo.make("residual")
    renamed = _Named(model)
    for name in ("neuron_intgrad", "random", "greedy"):
        method = zoo.quick(name)
        expected = cpath.score(renamed, images, method)
        assert torch.equal(cpath.score(renamed, wrap(images), method).flat, expected.flat)
    pathway = expected.pathway(50)
    for found in (
        cpath.attribute(renamed, wrap(images), "smoothgrad", samples=2),
        cpath.pathway_gradient(renamed, wrap(images), pathway),
    ):
        assert isinstance(found, tuple if isinstance(wrap(images), tuple) else dict)
        (values,) = found if isinstance(found, tuple) else found.values()
        assert values.shape == images.shape
    assert torch.equal(values, cpath.pathway_gradient(renamed, images, pathway))


class _Named(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


Pair = namedtuple("Pair", "first second")


def test_nested_structures_are_handed_on_as_they_are():
    x, y = torch.arange(6.0).view(3, 2), torch.arange(3)
    structure = ({"a": [x, None, "word"]}, Pair(y, (torch.tensor(2.5),)), 7)
    inputs = Inputs.of(structure)
    assert (len(inputs), inputs.sources, inputs.batched) == (3, (0,), (True, True, False))
    assert inputs.names == ("inputs[0]['a'][0]", "inputs[1][0]", "inputs[1][1][0]")
    first, second, third = inputs[1:].call(lambda *arguments: arguments)
    assert third == 7
    assert first["a"][1:] == [None, "word"]
    assert torch.equal(first["a"][0], x[1:])
    assert isinstance(second, Pair)
    assert torch.equal(second.first, y[1:])
    assert second.second[0] == 2.5
    found = inputs.structured({0: x})
    assert found[0]["a"] == [x, None, None]
    assert found[1:] == (Pair(None, (None,)), None)
    repeated = inputs.versions([torch.cat([x, 2 * x])]).call(lambda *arguments: arguments)
    assert torch.equal(repeated[1].first, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert repeated[1].second[0].dim() == 0


def test_a_tensor_with_one_row_belongs_to_all_inputs_of_a_larger_batch():
    places = torch.arange(5).view(1, 5)
    inputs = Inputs.of({"places": places, "x": torch.zeros(3, 5), "single": torch.zeros(1, 5)})
    assert (len(inputs), inputs.sources) == (3, (1,))
    part = inputs[torch.tensor([True, False, True])]
    assert len(part) == 2
    assert [tuple(tensor.shape) for tensor in part.tensors] == [(1, 5), (2, 5), (1, 5)]


# Dimensions


class Averaging(nn.Module):
    """Takes any number of features in any number of dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), -1)[:, :4] if x.dim() > 1 else x[:, None].expand(-1, 4)
        return self.second(F.relu(self.first(torch.sin(x))))


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 5), (3, 2, 3, 2, 2)])
def test_inputs_of_any_number_of_dimensions(shape):
    model = zoo.make(Averaging, torch.float64)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = model(x).argmax(1)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf)[range(3), labels].sum(), leaf)
    torch.testing.assert_close(cpath.attribute(model, x, "gradients"), slope, **CLOSE)
    torch.testing.assert_close(cpath.attribute(model, x, "input_mct"), slope * x, **CLOSE)
    torch.testing.assert_close(
        cpath.attribute(model, x, "input_intgrad", nodes=3), _integrated(model, x, 3), **BY_CAPTUM
    )
    z = F.relu(model.first(torch.sin(x.reshape(3, -1)[:, :4] if x.dim() > 1 else x[:, None].expand(-1, 4))))
    scores = cpath.score(model, x)
    torch.testing.assert_close(scores.flat, (z * model.second.weight[labels]).abs().detach(), **CLOSE)
    for name in ("smoothgrad", "random", "gbp", "neuron_intgrad"):
        found = cpath.attribute(model, x, zoo.quick_attribution(name))
        assert found.shape == x.shape
        for number in range(3):
            alone = cpath.attribute(model, x[number : number + 1], zoo.quick_attribution(name))
            torch.testing.assert_close(alone, found[number : number + 1], **CLOSE)


@pytest.mark.parametrize("name", NEED_IMAGES)
def test_what_needs_images_says_so(name):
    x = torch.randn(3, 4, dtype=torch.float64)
    with pytest.raises(cpath.InputError, match=r"needs images \(B, C, H, W\).*shape \(3, 4\)"):
        cpath.attribute(zoo.make(Averaging, torch.float64), x, name)
    with pytest.raises(cpath.InputError, match=r"\(B, C, H, W\)"):
        cpath.single_channel(x)


# Random numbers


def test_draws_come_from_the_bytes_of_all_tensors_of_an_input(images):
    """Of a single tensor, they are those of its bytes alone, as ever."""
    start = (7 * 0x9E3779B1 + zlib.crc32(b"mine")) * 0x9E3779B1
    seeds = [start + zlib.crc32(image.numpy().tobytes()) for image in images]
    found = [one.initial_seed() for one in cpath.methods.image_generators(images, 7, "mine")]
    assert found == [seeded(seed % 2**63).initial_seed() for seed in seeds]
    second = torch.tensor([1, 1, 2])
    shared = torch.tensor([[3]])
    both = cpath.methods.image_generators((images, second, shared), 7, "mine")
    for number, one in enumerate(both):
        digest = zlib.crc32(images[number].numpy().tobytes())
        for tensor in (second[number], shared[0]):
            digest = zlib.crc32(tensor.numpy().tobytes(), digest)
        assert one.initial_seed() == (start + digest) % 2**63
    (alone,) = cpath.methods.image_generators((images[:1], second[:1], shared), 7, "mine")
    assert alone.initial_seed() == both[0].initial_seed()


# What is refused, before any work


def _changed(**changes: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    images, more, scale = given()
    return changes.pop("images", images), {**more, **changes}, scale


REFUSED = {
    "nothing": ((), r"must hold a tensor"),
    "no tensor": ((1, "word"), r"must hold a tensor"),
    "a list": (
        [zoo.images()],
        r"must be a tensor \(B, …\), a tuple .* or a mapping .*, not an object of type list",
    ),
    "numbers for names": ({0: zoo.images()}, r"keys must be the names"),
    "a number": (torch.tensor(3.0), r"must be a batch .*not a number.*inputs\[None\]"),
    "two batches": (
        _changed(vector=torch.zeros(4, 2, dtype=torch.float64)),
        r"one batch.*inputs\[0\] has 3, inputs\[1\]\['vector'\] has 4",
    ),
    "no batch": (
        _changed(vector=torch.zeros(10, 10, dtype=torch.float64)),
        r"belongs to no input of its own must have a first dimension of 1",
    ),
    "float32": (
        _changed(vector=torch.zeros(3, 2)),
        r"inputs\[1\]\['vector'\] is torch.float32 but .*float64: pass inputs\[1\]\['vector'\].to\(torch.float64\)",
    ),
    "meta": (
        _changed(row=torch.zeros(3, dtype=torch.int64, device="meta")),
        r"inputs\[1\]\['row'\] is meta but the model's parameters are cpu",
    ),
    "NaN": (
        _changed(vector=torch.full((3, 2), torch.nan).double()),
        r"inputs\[1\]\['vector'\] holds NaN or infinite",
    ),
    "infinite": (_changed(vector=torch.full((3, 2), torch.inf).double()), r"holds NaN or infinite"),
    "sparse": (_changed(vector=torch.eye(3, 2).double().to_sparse()), r"inputs\[1\]\['vector'\] must be dense"),
    "complex": (
        _changed(vector=torch.zeros(3, 2).cfloat()),
        r"must be floats .* or whole numbers; got torch.complex64",
    ),
    "no features": (_changed(vector=torch.zeros(3, 0).double()), r"B ≥ 1; got shape \(3, 0\)"),
    "no inputs": (row(given(), 3), r"B ≥ 1; got shape \(0, 3, 8, 8\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_inputs_are_refused_before_any_work(case):
    inputs, message = REFUSED[case]
    model = conditioned()
    for call in (
        lambda: cpath.score(model, inputs),
        lambda: cpath.find_pathway(model, inputs, "random"),
        lambda: cpath.attribute(model, inputs, "gradients"),
        lambda: cpath.Probe(model, inputs),
    ):
        with pytest.raises(cpath.InputError, match=message):
            call()
    assert model.calls == 0


def test_arguments_that_the_model_does_not_take_are_named():
    model = conditioned()
    images, more, _ = given()
    for inputs, message in (
        (images, "missing a required argument: 'more'"),
        ({"images": images, "vector": more["vector"]}, "missing a required argument: 'more'"),
        ((images, more, 1.0, "mean", 5), "too many positional arguments"),
    ):
        with pytest.raises(cpath.InputError, match=f"does not take these inputs .{message}"):
            cpath.score(model, inputs)


class Masked(nn.Module):
    """Adds a mask of 0 and −∞, as attention does, and takes a tensor that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, zoo.CLASSES)

    def forward(self, x: Tensor, mask: Tensor, unused: Tensor) -> Tensor:
        return self.fc(F.relu(x * (x + mask).softmax(1)))


def test_additive_masks_may_be_infinite_and_unused_tensors_have_a_gradient_of_zero():
    model = zoo.make(Masked, torch.float64)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mask = torch.zeros(3, 4, dtype=torch.float64)
    mask[0, 1] = mask[2, 3] = -torch.inf
    for name in ("gradients", "input_intgrad", "smoothgrad", "neuron_mct"):
        found = cpath.attribute(model, (x, mask, 2 * x), zoo.quick_attribution(name))
        assert found[1] is None
        assert found[0].count_nonzero() > 0
        assert found[2].count_nonzero() == 0
    scores = cpath.score(model, (x, mask, 2 * x), target=0).flat
    z = F.relu(x * (x + mask).softmax(1))
    torch.testing.assert_close(scores, (z * model.fc.weight[0]).abs().detach(), **CLOSE)
    with pytest.raises(cpath.InputError, match="NaN or infinite"):
        cpath.score(model, (x, -mask, x))


def test_whole_numbers_for_a_model_of_floats_are_explained(images):
    for dtype in (torch.uint8, torch.int64, torch.bool):
        with pytest.raises(cpath.InputError, match=rf"inputs must be floats.*got shape .*{dtype}"):
            cpath.score(zoo.make("residual"), images.to(dtype))


def test_an_error_of_the_model_on_a_shape_tells_the_shape(images):
    for wrong in (images.flatten(1), images[:, :2]):
        with pytest.raises(cpath.InputError, match=r"must be a batch.*got shape .*the model raised") as caught:
            cpath.score(zoo.make("vgg"), wrong)
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_find_blocks_takes_any_inputs():
    assert set(cpath.evaluation.find_blocks(conditioned(), given())) == {"fc", "hidden", "table", "conv"}
