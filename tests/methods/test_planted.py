"""Networks in which the neurons that carry a class are known, because someone planted them there."""

import pytest
import torch
from torch import Tensor, nn

import cpath
from tests import zoo


class Planted(nn.Module):
    """Two networks side by side that share nothing but the image: ``left`` gives logit 0, ``right`` logit 1."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (
            nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(4, 6, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(24, 1),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


SIDES = ("left", "right")


@pytest.fixture
def planted() -> nn.Module:
    return zoo.make(Planted, torch.float64)


@pytest.fixture
def images() -> Tensor:
    return zoo.images(6, dtype=torch.float64)


def share_of(side: str, pathway: cpath.Pathway) -> Tensor:
    """(B,) share of the pathway's neurons that belong to ``side``."""
    inside = [mask.flatten(1).sum(1) for name, mask in pathway.masks.items() if name.startswith(side)]
    return sum(inside) / pathway.flat.sum(1)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("name", ["neuron_mct", "neuron_intgrad", "neuron_intgrad_released"])
@pytest.mark.parametrize("sparsity", [0, 60, 80, 95])
def test_contribution_methods_select_from_the_planted_side_only(planted, images, name, target, sparsity):
    pathway = cpath.find_pathway(planted, images, name, sparsity, target=target)
    assert pathway.flat.any(1).all()
    assert (share_of(SIDES[target], pathway) == 1).all()


@pytest.mark.parametrize("target", [0, 1])
def test_greedy_removes_the_other_side_as_soon_as_it_sees_it(planted, images, target):
    scores = cpath.score(planted, images, "greedy", target=target)
    other = SIDES[1 - target]
    with cpath.observe(planted) as seen:
        planted(images)
    for name, values in scores.values.items():
        if name.startswith(other):
            assert (values[seen.activations[name] > 0] == 1).all()  # round 1, contribution 0
    # What the first removal brings to life over there goes in the next rounds, so that it stands below what the
    # response needs. Where more neurons are asked for than the planted side has, the other side fills up.
    for sparsity in (90, 95, 99):
        assert (share_of(SIDES[target], scores.pathway(sparsity)) == 1).all()
    assert (share_of(SIDES[target], scores.pathway(0)) < 1).all()


@pytest.mark.parametrize("name", ["dgr", "dgr_random_init"])
def test_dgr_selects_from_both_sides(planted, images, name):
    """The softmax that DGR keeps depends on both logits: what holds the other one down counts as much."""
    method = cpath.methods.get(name, iterations=150, learning_rate=0.05)
    scores = cpath.score(planted, images, method)
    pathway = scores.pathway(80)
    assert len(set(scores.target.tolist())) == 2
    predicted = torch.stack([share_of(side, pathway) for side in SIDES])[scores.target, torch.arange(len(images))]
    assert (predicted > 0.1).all()
    assert (predicted < 0.9).all()
