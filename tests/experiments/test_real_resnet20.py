"""A user's own network with functional ReLUs, real weights, real CIFAR-10 images: by configuration alone."""

import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import cpath
from experiments.engine.job import Job
from tests.users_resnet20 import ResNet20

pytestmark = pytest.mark.real

PER_CLASS = {"train": 10, "test": 100}


@pytest.fixture(scope="module")
def cifar10(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of each class, as a folder."""
    root, taken = tmp_path_factory.mktemp("cifar10"), Counter[tuple[str, str]]()
    with tarfile.open(real_data / "cifar10-jpeg.tar.xz") as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            split, label = member.name.split("/")[-3:-1] if member.isfile() else ("", "")
            if taken[split, label] < PER_CLASS.get(split, 0):
                taken[split, label] += 1
                archive.extract(member, root, filter="data")
    assert set(taken.values()) >= set(PER_CLASS.values())
    return next(root.rglob("train")).parent


@pytest.fixture
def user(job: Callable[..., Job], cifar10: Path, real_data: Path) -> Job:
    return job(
        "experiment=path_analysis",
        "dataset=cifar10_folder",
        f"dataset.root={cifar10}",
        "dataset.mean=[0.485,0.456,0.406]",
        "dataset.std=[0.229,0.224,0.225]",
        "model=custom",
        "model.name=resnet20",
        "model._target_=tests.users_resnet20.resnet20",
        f"checkpoint={real_data / 'resnet20-cifar10.pth'}",
        "experiment.images=16",
        "method=[neuron_mct,greedy,random]",
        small=False,
    )


def written_out(model: ResNet20, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and what every ReLU gives, from the weights alone."""
    state, seen = model.state_dict(), []

    def convolved(x: Tensor, layer: str, stride: int = 1) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        place, number = layer.rsplit("conv", 1)
        norm = [state[f"{place}bn{number}.{name}"] for name in names]
        return functional.batch_norm(functional.conv2d(x, state[f"{layer}.weight"], None, stride, 1), *norm)

    def rectified(x: Tensor) -> Tensor:
        seen.append(x.clamp(min=0).requires_grad_())
        return seen[-1]

    x = rectified(convolved(images, "conv1"))
    for layer in range(3):
        for block in range(3):
            stride, place = (2 if layer and not block else 1), f"layer{layer + 1}.{block}."
            inner = convolved(rectified(convolved(x, f"{place}conv1", stride)), f"{place}conv2")
            shortcut = x[:, :, ::stride, ::stride]
            if stride == 2:
                more = inner.shape[1] - shortcut.shape[1]
                shortcut = functional.pad(shortcut, (0, 0, 0, 0, more // 2, more // 2))
            x = rectified(inner + shortcut)
    return functional.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"]), seen


def test_a_users_network_with_functional_relu_needs_no_change(user):
    data, model = user.data, user.model
    images = data.test.batch(torch.arange(len(data.test)))
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == data.test.labels).double().mean()
    assert accuracy == pytest.approx(0.804, abs=0.002)  # of the whole test set 0.810

    model, images = model.double(), images[::100].double()
    scores = cpath.score(model, images)
    assert list(scores.values)[:4] == [":relu", "layer1.0:relu", "layer1.0:relu#2", "layer1.1:relu"]
    assert len(scores.values) == 19
    logits, seen = written_out(model, images)
    assert torch.equal(scores.target, logits.argmax(1))
    gradients = torch.autograd.grad(logits.max(1).values.sum(), seen)
    for found, z, gradient in zip(scores.values.values(), seen, gradients, strict=True):
        torch.testing.assert_close(found, (z * gradient).abs().detach(), rtol=1e-7, atol=1e-10)


def test_its_path_analysis_runs_from_the_configuration_alone(user):
    table = user.run()
    whole = table[(table.metric == "dead_share") & (table.x == "90.0")].set_index("method").value
    assert whole["neuron_mct"] == 0
    assert whole["greedy"] > 20
    sites = table[table.metric.str.startswith("site_dead_share/") & (table.x == "90.0")]
    assert sites.metric.nunique() == 19
    assert sites[sites.method == "neuron_mct"].value.max() == 0
