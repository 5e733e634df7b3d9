from __future__ import annotations

import pytest
import torch
from torch import nn

import cpath
from cpath.errors import InputError, MaskError, SiteError
from tests.users_resnet20 import resnet20

pytest.importorskip("torch_pruning")


def chain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 10),
        nn.ReLU(),
        nn.Linear(10, 4),
    ).eval()


IMAGES = torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def keeping(model, images, share, seed=0, sites=("relu",)):
    """Random channels at every site."""
    layout = cpath.score(model, images[:1], "active", unit="channel", sites=sites).layout
    generator = torch.Generator().manual_seed(seed)
    masks = {name: torch.rand(1, *shape, generator=generator) < share for name, shape in layout.shapes.items()}
    for mask in masks.values():
        mask[0, 0] = True
    return cpath.Pathway.from_masks(masks, unit="channel", sites=sites)


def restricted(model, pathway, images):
    with torch.no_grad(), pathway.restrict(model):
        return model(images)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_a_smaller_network_answers_as_the_restricted_one(share):
    model = chain()
    model[1].running_mean.uniform_(-1, 1)
    model[1].bias.data.uniform_(-1, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pathway = keeping(model, IMAGES, share)
    small = cpath.smaller_network(model, pathway, IMAGES)
    new = torch.randn(7, 3, 12, 12, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(small(new), restricted(model, pathway, new), rtol=1e-4, atol=1e-5)
    kept = [int(mask.sum()) for mask in pathway.masks.values()]
    assert [small[0].out_channels, small[4].out_channels, small[8].out_features] == kept
    assert (small[4].in_channels, small[8].in_features, small[10].in_features) == (kept[0], 4 * kept[1], kept[2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_sites_inside_the_blocks_of_a_resnet_are_taken_out():
    torch.manual_seed(0)
    model, images = resnet20(10, (3, 32, 32)).eval(), torch.randn(2, 3, 32, 32)
    sites = ("relu", "!*relu#2", "!:relu")
    pathway = keeping(model, images, 0.5, sites=sites)
    assert len(pathway.layout.shapes) == 9
    small = cpath.smaller_network(model, pathway, images)
    torch.testing.assert_close(small(images), restricted(model, pathway, images), rtol=1e-4, atol=1e-5)
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (small, model)]
    assert sizes[0] < 0.6 * sizes[1]


def test_sites_behind_a_sum_are_refused_by_name():
    model, images = resnet20(10, (3, 32, 32)).eval(), torch.randn(1, 3, 32, 32)
    with pytest.raises(SiteError, match=r"site ':relu' are added to those of layer 'layer\d\.\d\.conv2'"):
        cpath.smaller_network(model, keeping(model, images, 0.5), images)


class ReadBefore(nn.Module):
    """Another layer reads what the site has not seen yet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        x = self.first(x)
        return self.second(torch.relu(x).mean((2, 3))) + self.second(x.mean((2, 3)))


def test_an_architecture_that_reads_pruned_channels_elsewhere_is_refused():
    model = ReadBefore().eval()
    with pytest.raises(InputError, match="does not give the logits of the restricted one"):
        cpath.smaller_network(model, keeping(model, IMAGES, 0.5), IMAGES)


class Weightless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 4)

    def forward(self, x):
        return self.last(torch.relu(x).mean((2, 3)))


def test_a_site_whose_channels_no_layer_makes_is_refused():
    model = Weightless().eval()
    with pytest.raises(SiteError, match=r"makes the channels of site ':relu'"):
        cpath.smaller_network(model, keeping(model, IMAGES, 0.5), IMAGES)


def test_what_is_no_pathway_of_channels_of_one_input_is_refused():
    model = chain()
    pathway = keeping(model, IMAGES, 0.5)
    for wrong, error, message in (
        (cpath.find_pathway(model, IMAGES, "active"), InputError, "of 5 inputs: choose one"),
        (cpath.find_pathway(model, IMAGES[:1], "active"), InputError, "of neurons: only channels"),
        ("pathway", InputError, r"must be a cpath\.Pathway"),
        (
            keeping(
                nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)).eval(), IMAGES, 1
            ),
            MaskError,
            "belongs to another model",
        ),
        (
            cpath.Pathway.from_masks({k: m & False for k, m in pathway.masks.items()}, unit="channel"),
            MaskError,
            "keeps no channel of site '2'",
        ),
        (
            cpath.Pathway.from_masks(
                pathway.masks,
                unit="channel",
                baseline={"2": torch.ones(8, 12, 12), "5": torch.ones(12, 4, 4), "9": torch.ones(10)},
            ),
            InputError,
            "baseline other than zero",
        ),
    ):
        with pytest.raises(error, match=message):
            cpath.smaller_network(model, wrong, IMAGES)
