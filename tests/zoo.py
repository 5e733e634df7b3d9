"""Small models that between them use activations in every way that real ones do. All take (B, 3, S, S)."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpath import Method, attribution, methods

CLASSES = 5
SIZE = 8  # pixels; every model also takes larger images

# Iterative methods with so few rounds that a contract test over all methods stays quick.
QUICK_SETTINGS: dict[str, dict[str, object]] = {
    "neuron_intgrad": {"nodes": 3},
    "greedy": {"rounds": 3},
    "greedy_released": {"rounds": 3},
    "dgr": {"iterations": 5},
    "dgr_random_init": {"iterations": 20, "learning_rate": 3.0},
    "learned_ranking": {"steps": 2, "nodes": 3},
}


def quick(name: str) -> Method:
    return methods.get(name, **QUICK_SETTINGS.get(name, {}))


def quick_attribution(name: str) -> attribution.Attribution:
    """The attribution with settings that make it quick."""
    if name in attribution.base.REGISTRY:
        settings: dict[str, dict[str, int]] = {"input_intgrad": {"nodes": 4}, "smoothgrad": {"samples": 3}}
        return attribution.get(name, **settings.get(name, {}))
    return attribution.PathwayGradient(method=quick(name), sparsity=60)


def sequential() -> nn.Module:
    """ReLU modules, each used once."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.ReLU(),
        nn.Linear(10, CLASSES),
    )


class Block(nn.Module):
    """A residual block that calls one ReLU module twice, as torchvision's do."""

    def __init__(self, width: int, inplace: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class Residual(nn.Module):
    """Reused in-place ReLU modules, BatchNorm, residual additions in place."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=inplace)
        self.layer1 = nn.Sequential(Block(4, inplace), Block(4, inplace))
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


def vgg() -> nn.Module:
    """In-place ReLU modules, max pooling and dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(24, 12),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(12, CLASSES),
    )


class FunctionalBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Functional(nn.Module):
    """No activation module at all: every spelling of a functional ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = FunctionalBlock(3, 4)
        self.body = FunctionalBlock(4, 4)
        self.hidden = nn.Linear(4, 8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x) - 0.1)
        x = self.body(F.max_pool2d(x, 2)).mean((2, 3))
        return self.fc(self.hidden(x).relu())


class Fire(nn.Module):
    """SqueezeNet's module: two branches, concatenated."""

    def __init__(self, before: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        branches = [
            self.expand1x1_activation(self.expand1x1(x)),
            self.expand3x3_activation(self.expand3x3(x)),
        ]
        return torch.cat(branches, 1)


class Scale(nn.Module):
    """Multiplies each class by a parameter, which is 1: what comes before is no output site."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(CLASSES))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def fire() -> nn.Module:
    """Concatenated branches, and an activation as the last operation before the pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        Fire(4, 3, 4),
        Fire(8, 3, 4),
        nn.Conv2d(8, CLASSES, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Scale(),
    )


def headless() -> nn.Module:
    """`fire` as SqueezeNets are: the last activation gives the map of logits, and is an output site."""
    return fire()[:-1]


class Discarding(nn.Module):
    """Goes on with the tensor that it passed to the in-place activation, not with what that returned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.hidden = nn.Linear(4, 8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        F.relu(x, inplace=True)
        x = self.hidden(x.mean((2, 3)))
        x.relu_()
        return self.fc(x)


class InplaceSkip(nn.Module):
    """Adds to a tensor from before the site, in place: what `torch.vmap` over the site cannot run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x += self.conv(F.relu(x))
        return self.fc(F.relu(x).mean((2, 3)))


class Scaled(nn.Module):
    """Reads a number out of a tensor (``.item()``), which `torch.vmap` refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.relu(self.conv(x)))
        if x[0, 0, 0, 0].item() > 1e6:
            x = x / 2
        return self.fc(F.relu(x).mean((2, 3)))


class Normalising(nn.Module):
    """Changes its input in place, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x.sub_(0.25), inplace=True)
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


class Counter:
    """A number that is not part of the model which counts with it: cpath puts back what a model keeps."""

    def __init__(self) -> None:
        self.value = 0


class Raising(nn.Module):
    """A model that raises between its first and its second site, from its ``at``-th forward pass on."""

    def __init__(self, at: int = 1, error: type[Exception] = OSError) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, CLASSES)
        self.at = at
        self.error = error
        self.counter = Counter()

    @property
    def passes(self) -> int:
        return self.counter.value

    def forward(self, x: Tensor) -> Tensor:
        self.counter.value += 1
        x = self.relu1(self.bn1(self.conv1(x)))
        if self.passes >= self.at:
            raise self.error("the model breaks on purpose")
        return self.fc(self.relu2(self.conv2(x)).mean((2, 3)))


class Keeping(nn.Module):
    """Keeps what it computes: as an attribute, in containers, in buffers, and in place."""

    def __init__(self, at: int = 10**9) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, CLASSES)
        self.register_buffer("last", torch.zeros(4))
        self.register_buffer("total", torch.zeros(()))
        self.sums = torch.zeros(())
        self.history: list[Tensor] = []
        self.maps: dict[str, object] = {"inner": {"first": None}, "recent": deque([0.0], maxlen=2)}
        self.calls = 0
        self.at, self.counter = at, Counter()

    def forward(self, x: Tensor) -> Tensor:
        self.counter.value += 1
        self.calls += 1
        self.total += 1
        self.features = F.relu(self.conv1(x))
        self.history.append(self.features)
        if self.counter.value >= self.at:
            raise OSError("the model breaks on purpose")
        x = F.relu(self.conv2(self.features))
        self.maps["inner"]["first"] = self.features
        self.maps["recent"].append(x)
        self.last = x.mean((0, 2, 3))
        if not hasattr(self, "table"):  # a cache of the first pass, which all passes use
            self.table = x.new_ones(1, 4, 1, 1)
        return self.fc((x * self.table).mean((2, 3)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sequential": sequential,
    "residual": Residual,
    "vgg": vgg,
    "functional": Functional,
    "fire": fire,
}
"""The models that everything must work on."""


def make(name: str | Callable[[], nn.Module], dtype: torch.dtype = torch.float32, seed: int = 1) -> nn.Module:
    """A model in eval mode with lively weights and BatchNorm statistics that are not the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (MODELS[name] if isinstance(name, str) else name)()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):  # strong enough that images differ in class
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module.bias is None else "relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
    return model.to(dtype).eval()


def images(batch: int = 3, size: int = SIZE, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Noise on a colour of each image's own, so that the models tell them apart."""
    generator = torch.Generator().manual_seed(1000 + seed)
    noise = torch.randn(batch, 3, size, size, generator=generator, dtype=torch.float64)
    colour = torch.randn(batch, 3, 1, 1, generator=generator, dtype=torch.float64)
    return (noise + 2 * colour).to(dtype)


def contents(value: object) -> object:
    """What an attribute holds, so that a later change of it shows."""
    if isinstance(value, Tensor):
        return (id(value), value.detach().clone())
    if isinstance(value, dict):
        return tuple((key, contents(item)) for key, item in value.items())
    if isinstance(value, (list, tuple, deque)):
        return (type(value), *map(contents, value))
    return value if isinstance(value, (bool, int, float, str)) else id(value)


def state(model: nn.Module) -> dict[str, object]:
    """Everything about a model, and about torch as a whole, that a call of cpath must leave as it was."""
    found: dict[str, object] = {}
    for name, parameter in model.named_parameters():
        found[f"parameter {name}"] = (id(parameter), parameter.detach().clone(), parameter.requires_grad)
        found[f"gradient {name}"] = None if parameter.grad is None else parameter.grad.clone()
        found[f"tensor hooks {name}"] = list(parameter._backward_hooks or ())
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = (id(buffer), buffer.clone())
    for name, module in model.named_modules():
        hooks = {key: [*value] for key, value in vars(module).items() if key.endswith("_hooks") and value}
        plain = {key: contents(value) for key, value in vars(module).items() if not key.endswith("_hooks")}
        found[f"module {name}"] = (id(module), type(module), list(vars(module)), hooks, tuple(plain.items()))
    found["functions"] = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, nn.ReLU.forward)
    found["calls"] = (nn.Module.__call__, nn.Module._call_impl, torch.autograd.grad)
    found["global hooks"] = [
        list(getattr(nn.modules.module, f"_global_{kind}_hooks"))
        for kind in ("forward", "forward_pre", "backward", "backward_pre")
    ]
    found["modes"] = list(torch.overrides._get_current_function_mode_stack())
    found["gradients on"] = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    found["defaults"] = (torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())
    found["random"] = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    return found


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Asserts that ``model`` and torch are left as they were, whether or not the block raises."""
    before = state(model)
    try:
        yield
    finally:
        after = state(model)
        assert before.keys() == after.keys()
        changed = [name for name in before if not _same(before[name], after[name])]
        assert changed == []
