from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.attribution.base import REGISTRY
from tests import zoo
from tests.attribution.networks import SkipBeforeRelu, predicted
from tests.zoo import quick_attribution as quick

NAMES = cpath.attribution.names()
CAPTUM = ("gradients", "input_mct", "input_intgrad", "smoothgrad", "gbp")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


# The contract


def test_shape_and_value(name: str, model: nn.Module, images: Tensor) -> None:
    maps = cpath.attribute(model, images, quick(name))
    assert maps.shape in (images.shape, (3, 1, zoo.SIZE, zoo.SIZE))
    assert maps.dtype == images.dtype
    assert not maps.requires_grad
    assert maps.abs().max() > 0


# Maps of pathways on every model are what tests/test_contracts.py says of their scores and gradients.
@pytest.mark.parametrize(
    ("name", "network"),
    [(name, model) for name in NAMES for model in (["fire"] if name in cpath.methods.names() else zoo.MODELS)],
)
def test_batch_equals_one_by_one(name: str, network: str, images64: Tensor) -> None:
    attribution, model64 = quick(name), zoo.make(network, torch.float64)
    maps = cpath.attribute(model64, images64, attribution)
    single = torch.cat([cpath.attribute(model64, images64[i : i + 1], attribution) for i in range(3)])
    pieces = cpath.attribute(model64, images64, attribution, max_batch=2)
    assert torch.allclose(maps, single, rtol=1e-6, atol=1e-9)
    assert torch.allclose(maps, pieces, rtol=1e-6, atol=1e-9)


def test_same_bits_again_and_no_global_randomness(name: str) -> None:
    model, images = zoo.make("residual"), zoo.images()
    state = torch.get_rng_state()
    first = cpath.attribute(model, images, quick(name))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12345)
    assert torch.equal(cpath.attribute(model, images, quick(name)), first)


@pytest.mark.parametrize("target", [0, torch.tensor([0, 4, 2])])
def test_target(name: str, target: int | Tensor) -> None:
    model, images = zoo.make("residual"), zoo.images()
    maps = cpath.attribute(model, images, quick(name), target)
    labels = torch.as_tensor(target).expand(3)
    each = [cpath.attribute(model, images[i : i + 1], quick(name), int(labels[i])) for i in range(3)]
    assert torch.allclose(maps, torch.cat(each), rtol=1e-3, atol=1e-5)
    default = cpath.attribute(model, images, quick(name))
    explicit = cpath.attribute(model, images, quick(name), torch.tensor(predicted(model, images)))
    assert torch.equal(default, explicit)


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {key: value.clone() for key, value in model.state_dict().items()},
        "versions": [p._version for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "inplace": [getattr(m, "inplace", None) for m in model.modules()],
        "hooks": [
            {key: dict(value) for key, value in vars(m).items() if "hook" in key and isinstance(value, dict)}
            for m in model.modules()
        ],
        "children": [list(vars(m)) for m in model.modules()],
    }


def assert_unchanged(model: nn.Module, before: dict[str, Any]) -> None:
    after = snapshot(model)
    tensors, others = after.pop("tensors"), before.pop("tensors")
    assert all(torch.equal(tensors[key], others[key]) for key in others)
    assert all(a is b for a, b in zip(after.pop("grad"), before.pop("grad"), strict=True))
    assert after == before


def lively(model: nn.Module) -> nn.Module:
    """In train mode but for one module, with a frozen parameter, a gradient and a hook of the user's."""
    model.train()
    next(reversed(list(model.modules()))).eval()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    model.register_forward_hook(lambda *_: None)
    return model


def test_leaves_model_and_images_as_they_were(name: str, model: nn.Module, images: Tensor) -> None:
    model = lively(model)
    before, pixels = snapshot(model), images.clone()
    images.requires_grad_()
    cpath.attribute(model, images, quick(name))
    assert_unchanged(model, before)
    assert images.requires_grad
    assert images.grad is None
    assert torch.equal(images, pixels)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_leaves_model_as_it_was_when_it_raises(name: str, at: int) -> None:
    model, images = lively(zoo.make(lambda: zoo.Raising(at))), zoo.images()
    before = snapshot(model)
    try:
        for _ in range(3):
            cpath.attribute(model, images, quick(name))
    except OSError:
        pass
    else:
        pytest.fail("the model's own error was swallowed")
    assert_unchanged(model, before)
    assert not images.requires_grad


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(name: str, off: Callable[[], Any]) -> None:
    model = zoo.make("residual")
    expected = cpath.attribute(model, zoo.images(), quick(name))
    with off():
        assert torch.equal(cpath.attribute(model, zoo.images(), quick(name)), expected)


def test_works_on_frozen_parameters(name: str) -> None:
    model, images = zoo.make("functional"), zoo.images()
    expected = cpath.attribute(model, images, quick(name))
    model.requires_grad_(False)
    assert torch.allclose(cpath.attribute(model, images, quick(name)), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "target"),
    [
        (zoo.images()[:0], None),
        (zoo.images().fill_(float("nan")), None),
        (zoo.images()[0], None),
        (zoo.images().flatten(1), None),
        (zoo.images().long(), None),
        (zoo.images().double(), None),
        (zoo.images(), zoo.CLASSES),
        (zoo.images(), -1),
        (zoo.images(), torch.tensor([0, 1])),
        (zoo.images(), torch.tensor([0.0, 1.0, 2.0])),
    ],
)
def test_unusable_input(name: str, images: Tensor, target: Any) -> None:
    with pytest.raises(cpath.InputError):
        cpath.attribute(zoo.make("residual"), images, quick(name), target)


@pytest.mark.parametrize("maker", [zoo.Discarding, zoo.InplaceSkip, zoo.Scaled, SkipBeforeRelu])
def test_awkward_models(name: str, maker: Callable[[], nn.Module]) -> None:
    model, images = zoo.make(maker), zoo.images()
    assert torch.isfinite(cpath.attribute(model, images, quick(name))).all()


# Names and settings


@pytest.fixture
def registry() -> Iterator[None]:
    saved = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(saved)


@pytest.mark.usefixtures("registry")
def test_a_users_own_attribution() -> None:
    @cpath.attribution.register("gradient_norm")
    @dataclass(frozen=True, kw_only=True)
    class GradientNorm(cpath.attribution.Attribution):
        power: int = 1

        def maps(self, probe: cpath.attribution.ResponseProbe) -> Tensor:
            return cpath.attribution.Gradients().maps(probe).norm(dim=1, keepdim=True) ** self.power

    model, images = zoo.make("vgg"), zoo.images()
    assert "gradient_norm" in cpath.attribution.names()
    found = cpath.attribute(model, images, "gradient_norm", power=2)
    expected = cpath.attribute(model, images, "gradients").square().sum(1, keepdim=True)
    assert torch.allclose(found, expected)
    with pytest.raises(cpath.InputError, match="taken"):
        cpath.attribution.register("gradcam")(GradientNorm)
    for other in (int, cpath.Method, len):
        with pytest.raises(cpath.InputError, match=r"be a subclass of cpath\.attribution\.Attribution"):
            cpath.attribution.register("wrong")(other)
    assert "wrong" not in cpath.attribution.names()

    @cpath.attribution.register("wrong")
    class Wrong(cpath.attribution.Attribution):
        def maps(self, probe: cpath.attribution.ResponseProbe) -> Tensor:
            return probe.images[:, :, :-1]

    with pytest.raises(cpath.InputError, match="gave shape"):
        cpath.attribute(model, images, "wrong")


def test_names_and_settings() -> None:
    model, images = zoo.make("vgg"), zoo.images()
    assert set(CAPTUM) | {"gradcam", "neuron_intgrad_star", "random", "sobel"} | set(cpath.methods.names()) == set(
        NAMES
    )
    with pytest.raises(cpath.UnknownNameError, match="Did you mean gradcam"):
        cpath.attribute(model, images, "gradcan")
    for settings in ({"sparsity": 90}, {"sitte": ""}):
        with pytest.raises(cpath.InputError, match="gradcam"):
            cpath.attribute(model, images, "gradcam", **settings)
    with pytest.raises(cpath.InputError, match="sparsity"):
        cpath.attribute(model, images, "neuron_mct", sparsity=100)
    with pytest.raises(cpath.InputError, match="cannot take further settings"):
        cpath.attribute(model, images, cpath.attribution.GradCAM(), site="1")
    with pytest.raises(cpath.InputError, match="must be a name"):
        cpath.attribute(model, images, 3)  # type: ignore[arg-type]
    with pytest.raises(cpath.InputError, match="max_batch"):
        cpath.attribute(model, images, "gradcam", max_batch=0)
    for attribution in (
        lambda: cpath.attribution.InputIntGrad(nodes=0),
        lambda: cpath.attribution.SmoothGrad(samples=0),
        lambda: cpath.attribution.NeuronIntGradStar(nodes=0),
        lambda: cpath.attribution.RandomMap(seed=-1),
    ):
        with pytest.raises(cpath.InputError):
            attribution()


def test_the_random_method_as_pathway_gradient() -> None:
    model, images = zoo.make("vgg"), zoo.images()
    method = cpath.methods.Random(seed=3)
    found = cpath.attribute(model, images, method, sparsity=50)
    pathway = cpath.find_pathway(model, images, method, 50)
    assert torch.equal(found, cpath.pathway_gradient(model, images, pathway))


# Optional packages


def test_the_default_is_that_of_pathways_and_needs_no_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    model, images = zoo.make("vgg"), zoo.images()
    found = cpath.attribute(model, images)
    assert torch.equal(found, cpath.pathway_gradient(model, images, cpath.find_pathway(model, images)))


@pytest.mark.parametrize("name", CAPTUM)
def test_without_captum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(cpath.MissingPackageError, match=r"pip install 'captum>=0.9'"):
        cpath.attribute(zoo.make("vgg"), zoo.images(), name)


def test_importing_cpath_imports_no_optional_package() -> None:
    code = (
        "import sys, cpath; from cpath.evaluation import accuracy;"
        " print([m for m in ('captum', 'scipy', 'skimage', 'torchvision', 'matplotlib', 'pandas', 'hydra', 'wandb',"
        " 'pytorch_lightning', 'quantus') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
