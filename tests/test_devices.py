"""Devices that are not the default one, and devices without float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import cpath
from cpath import devices
from tests import zoo


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """New tensors without a device have no values: those that cpath computes with must name theirs."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def _results(method: str) -> dict[str, Tensor]:
    """Numbers of everything that works with a pathway of ``method``, on the CPU."""
    with torch.device("cpu"):
        model, images = zoo.make("residual"), zoo.images()
    scores = cpath.score(model, images, zoo.quick(method), target=1)
    pathway = scores.pathway(60)
    with cpath.observe(model) as seen, torch.no_grad():
        logits = model(images)
    with pathway.restrict(model), torch.no_grad():
        restricted = model(images)
    change, kept = cpath.analysis.response_preservation(model, images, pathway, logits)
    radius = cpath.analysis.affine_radius(model, images, pathway, neurons=3)
    measures = cpath.analysis.compare_pathways({"one": pathway, "other": pathway}, seen.activations)
    return {
        "scores": scores.flat,
        "masks": pathway.flat,
        "sparsity": pathway.sparsity,
        "jaccard": pathway.jaccard(pathway),
        "dead": pathway.dead_share(seen.activations),
        "restricted": restricted,
        "gradient": cpath.pathway_gradient(model, images, pathway),
        "change": change,
        "kept": kept,
        "radius": radius,
        **{f"{name}/{measure}": values for (name, measure), values in measures.items()},
    }


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].device == values.device == torch.device("cpu"), name
        assert torch.equal(found[name].nan_to_num(7), values.nan_to_num(7)), name


@pytest.mark.parametrize("method", cpath.methods.names())
def test_pathways_do_not_depend_on_the_default_device(method, request):
    expected = _results(method)
    request.getfixturevalue("elsewhere")
    _assert_same(_results(method), expected)


@pytest.mark.parametrize("name", [*cpath.attribution.base.REGISTRY, "neuron_intgrad"])
def test_attributions_do_not_depend_on_the_default_device(name, request):
    model, images = zoo.make("residual"), zoo.images()
    expected = cpath.attribute(model, images, zoo.quick_attribution(name))
    request.getfixturevalue("elsewhere")
    assert torch.equal(cpath.attribute(model, images, zoo.quick_attribution(name)), expected)


def _evaluated(model: nn.Module, images: Tensor) -> list[Any]:
    maps = cpath.attribute(model, images, "gradients")
    evaluation = cpath.evaluation
    found: list[Any] = []
    for order in ("least", "most"):
        degraded = evaluation.degrade(model, images, maps, order=order, percent=[10, 50])
        found += [degraded.change, degraded.probability, degraded.target]
    for init in ("normal", "own"):
        check = evaluation.sanity_check(model, images, ["gradients"], draws=1, init=init, measures=["spearman"])
        found += [check.similarity["gradients"]["spearman"], check.baseline["gradients"]["spearman"]]
    ranks = evaluation.rank_pixels(maps, images)
    found += [ranks, evaluation.remove_pixels(images, ranks, 30, fill=evaluation.NoisyLinear())]
    found.append(evaluation.remove_pixels(images, ranks, 30, fill=(0.1, 0.2, 0.3)))
    found.append(cpath.attribution.quantus_explain(model, images.cpu().numpy(), [0, 1, 2], "gradients"))
    return [value if isinstance(value, Tensor) else np.asarray(value) for value in found]


def test_evaluations_do_not_depend_on_the_default_device(request):
    model, images = zoo.make("residual"), zoo.images()
    expected = _evaluated(model, images)
    request.getfixturevalue("elsewhere")
    for found, value in zip(_evaluated(model, images), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(value))


def test_files_and_datasets_do_not_depend_on_the_default_device(request, tmp_path):
    model, images = zoo.make("residual"), zoo.images()
    scores = cpath.score(model, images)
    request.getfixturevalue("elsewhere")
    scores.save(tmp_path / "scores.safetensors")
    scores.pathway(60).save(tmp_path / "pathway.safetensors")
    assert torch.equal(cpath.Scores.load(tmp_path / "scores.safetensors").flat, scores.flat)
    assert torch.equal(cpath.Pathway.load(tmp_path / "pathway.safetensors").flat, scores.pathway(60).flat)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    with torch.device("cpu"):
        fresh = zoo.MODELS["residual"]()
    cpath.models.load_checkpoint(fresh, tmp_path / "model.pth")
    assert torch.equal(next(fresh.parameters()), next(model.parameters()))
    data = cpath.data.digits()
    assert data.test.labels.device.type == "cpu"
    assert data.test[3][0].isfinite().all()
    assert data.test.sample(5, seed=1).tolist() == data.test.sample(5, seed=1).tolist()
    for batch in (cpath.data.Batches(data.train, 50, seed=1), cpath.data.Batches(data.train, 50)):
        first, labels = next(iter(batch))
        assert first.isfinite().all()
        assert len(labels) == 50
    generator = torch.Generator("cpu").manual_seed(0)
    assert cpath.data.crop_and_flip(first, generator).isfinite().all()


def test_images_are_decoded_whatever_the_default_device_is(request):
    pytest.importorskip("lucent")
    model, images = zoo.make("residual"), zoo.images()
    pathway = cpath.find_pathway(model, images, sparsity=50)
    expected = cpath.decode(model, pathway, shape=(3, 8, 8), steps=2)
    request.getfixturevalue("elsewhere")
    found = cpath.decode(model, pathway, shape=(3, 8, 8), steps=2)
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.no_gradient, expected.no_gradient)


class OnMeta(Tensor):
    """A tensor with values that says that it is on the meta device, which stands for one without float64."""

    is_meta: ClassVar[bool] = False
    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnMeta:
        if inner.dtype in (torch.float64, torch.complex128):
            raise TypeError("this device has no float64")
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
            requires_grad=inner.requires_grad,
        )
        made.inner = inner.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    # Two calls that a subclass answers itself: they read or make values without an operation that is dispatched.
    def tolist(self) -> Any:
        return self.inner.tolist()

    def new_tensor(self, data: Any) -> OnMeta:  # type: ignore[override]
        return OnMeta(self.inner.new_tensor(data))

    def __repr__(self) -> str:
        return f"OnMeta({self.inner})"


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given: dict[int, OnMeta] = {}

    def unwrapped(value: Any) -> Any:
        if isinstance(value, OnMeta):
            given[id(value.inner)] = value
            return value.inner
        return torch.device("cpu") if isinstance(value, torch.device) else value

    place = kwargs.get("device")
    result = func(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
    if place.type != "meta" if place is not None else not given:
        return result

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return given[id(value)] if id(value) in given else OnMeta(value)  # an operation in place gives its input

    return tree_map(wrapped, result)


class Factories(TorchDispatchMode):
    """Has tensors that are made on the meta device be `OnMeta`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@pytest.fixture
def without_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"meta"})
    with Factories():
        yield


def _moved(model: nn.Module) -> nn.Module:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(OnMeta(parameter.detach()), requires_grad=True))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, OnMeta(buffer))
    return model


def test_the_device_that_is_pretended_has_no_float64(without_float64):
    with pytest.raises(TypeError, match="no float64"):
        OnMeta(torch.ones(3)).double()
    with pytest.raises(TypeError, match="no float64"):
        torch.zeros(3, dtype=torch.float64, device="meta")
    assert OnMeta(torch.ones(3)).cpu().double().tolist() == [1, 1, 1]
    assert type(torch.zeros(3, device="meta")) is OnMeta


@pytest.mark.parametrize("method", cpath.methods.names())
def test_pathways_on_a_device_without_float64(method, without_float64):
    model, images = zoo.make("residual"), zoo.images()
    expected = cpath.score(model, images, zoo.quick(method), target=1)
    found = cpath.score(_moved(model), OnMeta(images), zoo.quick(method), OnMeta(torch.ones(3, dtype=torch.int64)))
    assert found.flat.dtype == torch.float32
    torch.testing.assert_close(found.flat.cpu(), expected.flat.float(), rtol=1e-3, atol=1e-5)
