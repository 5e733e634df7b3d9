import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.layout import SiteLayout
from tests import zoo


@pytest.mark.parametrize(
    ("kind", "name", "shape", "expected"),
    [
        ("neuron", "relu", (4, 8, 8), (4, 8, 8)),
        ("channel", "fc", (10,), (10,)),
        ("channel", "mlp", (16, 8), (1, 8)),
        ("token", "mlp", (16, 8), (16, 1)),
        ("channel", "relu", (4, 8, 6), (4, 1, 1)),
        ("channel", "relu", (4, 2, 8, 6), (4, 1, 1, 1)),
        ("head", "blocks.0.attn:attention", (3, 16, 8), (3, 1, 1)),
        ("token", "blocks.0.attn:attention#2", (3, 16, 8), (1, 16, 1)),
        ("channel", ":attention", (3, 16, 8), (3, 1, 8)),
    ],
)
def test_the_axis_follows_from_the_shape_and_attention(kind, name, shape, expected):
    assert cpath.Units(kind).shape(name, shape) == expected
    assert cpath.Units(kind).shape(name, expected) == expected  # of units already


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("token", "pooler", (10,)),
        ("token", "relu", (4, 8, 8)),
        ("head", "relu", (4, 8, 8)),
        ("head", "mlp", (16, 8)),
        ("head", "attention", (3, 16, 8)),  # a module of that name is no attention
        ("channel", "deep", (2, 2, 2, 2, 2)),
        ("channel", "single", ()),
    ],
)
def test_a_site_without_such_an_axis_is_refused_with_its_name_and_a_remedy(kind, name, shape):
    with pytest.raises(cpath.SiteError, match=rf"site '{name}' gives .* the {kind}s: .*'!{name}'"):
        cpath.Units(kind).shape(name, shape)


def test_the_axis_can_be_named_for_all_sites_for_some_or_by_a_function():
    last = cpath.Units("channel", axis=-1)
    assert last.shape("any", (7, 7, 96)) == (1, 1, 96)
    some = cpath.Units("channel", axis={"stages.0*": 2, "stages.*": (0, 1)})
    assert some.shape("stages.0.act", (7, 7, 96)) == (1, 1, 96)  # the first pattern that matches
    assert some.shape("stages.1.act", (7, 7, 96)) == (7, 7, 1)
    assert some.shape("stem", (96, 7, 7)) == (96, 1, 1)
    rule = cpath.Units("token", axis=lambda name, shape: (0, 1) if len(shape) == 3 else None)
    assert rule.shape("stages.1.act", (7, 7, 96)) == (7, 7, 1)
    assert rule.shape("mlp", (16, 8)) == (16, 1)


def test_unusable_units_are_refused():
    with pytest.raises(cpath.UnknownNameError, match=r"unknown unit 'chanel'.* Did you mean channel"):
        cpath.score(zoo.make("vgg"), zoo.images(), unit="chanel")
    with pytest.raises(
        cpath.InputError, match=r"unit must be one of neuron, channel, token, head, or a cpath\.Units"
    ):
        cpath.score(zoo.make("vgg"), zoo.images(), unit=1)
    with pytest.raises(cpath.InputError, match="a neuron is one element"):
        cpath.Units(axis=0)
    for axis in ("1", 1.0, True, (), {"a": None}):
        with pytest.raises(cpath.InputError, match="axis must be a whole number or a tuple"):
            cpath.Units("channel", axis=axis)
    with pytest.raises(cpath.SiteError, match=r"site '1' gives \(4, 8, 8\) for each input, which has no axis 3"):
        cpath.score(zoo.make("vgg"), zoo.images(), unit=cpath.Units("channel", axis=3))


def test_a_pattern_of_an_axis_that_fits_no_site_is_refused():
    units = cpath.Units("channel", axis={"*": 0, "relu?": 1})
    with pytest.raises(cpath.SiteError, match=r"axis names 'relu\?', which fits no site\. The sites are 1, "):
        cpath.score(zoo.make("vgg"), zoo.images(), unit=units)


@pytest.mark.parametrize(
    ("kind", "name", "shape", "remedy"),
    [
        ("head", "1", (4, 8, 8), "choose sites that have heads (sites='attention'), or say which axis they are"),
        ("token", "1", (4, 8, 8), "or take positions for tokens: unit=cpath.Units('token', axis={'1': (1, 2)})"),
        ("token", "fc", (10,), "or choose another unit: 'channel' or 'neuron'."),
        ("head", "attention", (3, 16, 8), "unit=cpath.Units('head', axis={'attention': AXIS})."),
        ("token", "x", (2, 3, 4, 5), "axis={'x': AXIS}), with AXIS from 0 to 3."),
        ("channel", "x", (2, 3, 4, 5, 6), "axis={'x': AXIS}), with AXIS from 0 to 4."),
        ("channel", "x", (), "or choose unit='neuron'."),
    ],
)
def test_where_no_axis_is_known_the_advice_fits_the_site(kind, name, shape, remedy):
    with pytest.raises(cpath.SiteError, match="no axis is known") as caught:
        cpath.Units(kind).shape(name, shape)
    assert f"leave the site out (add '!{name}' to sites)" in str(caught.value)
    assert remedy in str(caught.value)


def test_units_of_some_sites_only_are_refused_before_any_gradient(images):
    with pytest.raises(cpath.SiteError, match=r"site '1' gives \(4, 8, 8\).*the tokens"):
        cpath.score(zoo.make("vgg"), images, unit="token")


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Linear(3, 6)
        self.act = nn.ReLU()
        self.fc = nn.Linear(6, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.expand(x.movedim(1, 3))).mean((1, 2)))


def test_channels_last_have_their_channels_when_the_axis_is_named():
    model, images = zoo.make(ChannelsLast, torch.float64), zoo.images(dtype=torch.float64)
    scores = cpath.score(model, images, target=1, unit=cpath.Units("channel", axis=-1))
    # What follows is linear: a channel contributes its mean times its weight.
    hidden = model.expand(images.movedim(1, 3)).clamp(min=0).mean((1, 2))
    torch.testing.assert_close(scores.signed["act"].view(3, 6), (hidden * model.fc.weight[1]).detach())
    pathway = scores.pathway(50)
    with pathway.restrict(model), torch.no_grad():
        torch.testing.assert_close(model(images), model.fc(hidden * pathway.masks["act"].view(3, 6)))
    wrong = cpath.score(model, images, target=1, unit="channel")
    assert wrong.layout.shapes == {"act": (8, 1, 1)}  # rows of pixels: the rule cannot know


def test_the_layout_sums_and_marks_units():
    layout = SiteLayout({"a": (2, 1, 1), "b": (1, 3)}, "channel")
    values = torch.arange(8.0).view(1, 2, 2, 2)
    assert layout.sum("a", values).tolist() == [[[[6.0]], [[22.0]]]]
    assert layout.any("a", values > 6).flatten().tolist() == [False, True]
    assert layout.all("a", values > 3).flatten().tolist() == [False, True]
    assert layout.sum("b", torch.ones(1, 4, 3)).tolist() == [[[4.0, 4.0, 4.0]]]
    assert layout.units == 5
    of_neurons = SiteLayout({"a": (1, 2)})
    assert not of_neurons.fits("a", (3, 2))
    with pytest.raises(cpath.SiteError, match=r"gives \(3, 2\) for each image where its neurons have the shape"):
        of_neurons.sum("a", torch.ones(1, 3, 2))


def test_pathways_of_channels_fit_other_sizes_and_pathways_of_neurons_do_not(images):
    model = zoo.make("sequential")
    larger = torch.rand(3, 3, 12, 12)
    channels, neurons = (
        cpath.find_pathway(model, images, unit=unit, sparsity=50) for unit in ("channel", "neuron")
    )
    with channels.restrict(model) as reached, torch.no_grad():
        model(larger)
    assert reached == {"1", "4", "8"}
    with pytest.raises(cpath.MaskError, match="another model or input size"), neurons.restrict(model):
        model(larger)


def test_pathways_of_other_units_are_not_compared(images):
    model = zoo.make("sequential")
    channels, neurons = (
        cpath.find_pathway(model, images, unit=unit, sparsity=50) for unit in ("channel", "neuron")
    )
    with pytest.raises(cpath.MaskError, match="the pathways are of channels and of neurons"):
        channels.jaccard(neurons)
    assert channels.jaccard(channels).tolist() == [1.0] * 3
    assert repr(channels).startswith("Pathway(method='neuron_mct', images=3, sites=3, channels=20, sparsity=")


def test_jaccard_counts_channels():
    def of(*kept: bool) -> cpath.Pathway:
        return cpath.Pathway.from_masks({"a": torch.tensor(kept).view(1, -1, 1, 1)}, unit="channel")

    assert of(True, True, False, False).jaccard(of(True, False, True, False)).item() == pytest.approx(1 / 3)
    assert of(True, False, False, False).sparsity.item() == 75


def test_masks_with_more_values_than_units_are_refused():
    masks = {"a": torch.ones(1, 4, 2, 2, dtype=torch.bool)}
    with pytest.raises(
        cpath.MaskError, match=r"mask of site 'a' has the shape \(4, 2, 2\).*channels have \(4, 1, 1\)"
    ):
        cpath.Pathway.from_masks(masks, unit="channel")


def test_the_ball_of_a_pathway_of_channels_is_that_of_its_neurons():
    model, images = zoo.make("sequential", torch.float64), zoo.images(dtype=torch.float64)
    channels = cpath.find_pathway(model, images, unit="channel", sparsity=50)
    shapes = {name: z.shape for name, z in cpath.Probe(model, images).record(gradients=False).activations.items()}
    neurons = cpath.Pathway.from_masks({name: mask.expand(shapes[name]) for name, mask in channels.masks.items()})
    for counted in (None, 7):
        one, other = (
            cpath.analysis.affine_radius(model, images, pathway, neurons=counted) for pathway in (channels, neurons)
        )
        assert torch.equal(one, other)
        assert bool((one > 0).all())
