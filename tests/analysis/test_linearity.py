from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import cpath
from cpath.analysis import affine_radius
from tests import zoo
from tests.oracles import linearity as oracle
from tests.oracles.networks import NETWORKS

# Those without max pooling, which has kinks of its own.
AFFINE = ("sequential", "residual")


@pytest.fixture(params=AFFINE)
def case(request):
    model = zoo.make(request.param, torch.float64)
    images = zoo.images(dtype=torch.float64)[:2]
    pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=80)
    return model, images, pathway, NETWORKS[request.param], dict(model.state_dict())


def _nearest(case):
    _, images, pathway, network, weights = case
    return [
        oracle.nearest_neuron(
            network, weights, image, {name: mask[index : index + 1] for name, mask in pathway.masks.items()}
        )
        for index, image in enumerate(images)
    ]


def _gradient(model, images, pathway):
    return cpath.pathway_gradient(model, images, pathway)


def test_radius_equals_the_oracle(case):
    model, images, pathway, *_ = case
    expected = torch.tensor([radius for radius, _ in _nearest(case)], dtype=torch.float64)
    torch.testing.assert_close(affine_radius(model, images, pathway), expected, rtol=1e-9, atol=0)


def test_gradient_is_constant_inside_the_ball_and_changes_just_outside(case):
    model, images, pathway, *_ = case
    radius = affine_radius(model, images, pathway)
    inside = _gradient(model, images, pathway)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        step *= (0.999 * radius / step.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
        torch.testing.assert_close(_gradient(model, images + step, pathway), inside, rtol=1e-9, atol=1e-12)
    critical = torch.stack([step for _, step in _nearest(case)])
    scale = radius.view(-1, 1, 1, 1)
    torch.testing.assert_close(
        _gradient(model, images + 0.999 * scale * critical, pathway), inside, rtol=1e-9, atol=1e-12
    )
    beyond = _gradient(model, images + 1.001 * scale * critical, pathway)
    # Not in every image: what the nearest neuron feeds may be pruned.
    assert ((beyond - inside).flatten(1).norm(dim=1) > 1e-9).any()


def test_the_sampled_radius_is_an_upper_bound_that_becomes_exact(case):
    model, images, pathway, *_ = case
    exact = affine_radius(model, images, pathway)
    bounds = [affine_radius(model, images, pathway, neurons=count) for count in (1, 10, 100, 10**9)]
    for looser, tighter in pairwise(bounds):
        assert (looser >= tighter).all()
    assert (bounds[0] >= exact).all()
    torch.testing.assert_close(bounds[-1], exact)


def test_kept_neurons_that_cannot_change_are_not_sampled():
    model, images = zoo.make("sequential", torch.float64), zoo.images(dtype=torch.float64)
    torch.nn.init.constant_(model[3].bias, 1e-9)  # what depends on nothing looks close to a change of sign
    masks = {name: torch.zeros_like(v).bool() for name, v in cpath.score(model, images, "active").values.items()}
    first, second = list(masks)[:2]
    masks[first][:, :, 0, 0] = True
    masks[second][:] = True
    pathway = cpath.Pathway.from_masks(masks)
    exact, sampled = affine_radius(model, images, pathway), affine_radius(model, images, pathway, neurons=3)
    assert sampled.isfinite().all()
    assert (exact <= sampled).all()
    assert (sampled < 3 * exact).all()
    masks[first][:] = False
    masks[second][:] = False
    masks[list(masks)[2]][:] = True  # behind nothing: affine everywhere, and said so
    assert affine_radius(model, images, cpath.Pathway.from_masks(masks), neurons=3).isinf().all()


class Table(torch.nn.Module):
    """fc(relu(conv(x)) · (1 + relu(table))), or fc(relu(conv(x))) where the table is None."""

    def __init__(self, table: torch.Tensor | None) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.fc = torch.nn.Linear(4, zoo.CLASSES)
        self.table = table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = 1.0 if self.table is None else 1 + torch.relu(self.table)
        return self.fc((self.relu(self.conv(x)) * scale).mean((2, 3)))


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("told_by", ["pathway", "model"])
def test_a_table_through_relu_takes_no_part(trained, told_by):
    values = torch.linspace(-1e-6, 1e-6, 4, dtype=torch.float64).view(1, 4, 1, 1)
    table = torch.nn.Parameter(values) if trained else values
    model, images = zoo.make(lambda: Table(table), torch.float64), zoo.images(dtype=torch.float64)[:2]
    pathway = cpath.find_pathway(model, images, sparsity=50)
    assert pathway.left_out == (":relu",)
    # Without the table, whose only effect is on the scale behind the site, no pre-activation changes.
    plain = Table(None).double().eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name != "table"})
    expected = affine_radius(plain, images, cpath.Pathway.from_masks(pathway.masks))
    assert (expected.isfinite() & (expected > 0)).all()
    if told_by == "model":
        pathway = cpath.Pathway.from_masks(pathway.masks)
    for neurons in (None, 10**9):
        found = affine_radius(model, images, pathway, neurons=neurons)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert (affine_radius(model, images, pathway, neurons=2) >= expected * (1 - 1e-9)).all()


def test_a_compiled_model_has_the_radius_of_the_plain_one():
    model, images = zoo.make("sequential", torch.float64), zoo.images(dtype=torch.float64)
    pathway = cpath.find_pathway(model, images)
    compiled = torch.compile(model, backend="aot_eager")
    plain = affine_radius(model, images, pathway, neurons=5)
    assert affine_radius(compiled, images, pathway, neurons=5).equal(plain)


def test_a_sparser_pathway_may_move_further_and_an_empty_one_anywhere():
    model, images = zoo.make("sequential", torch.float64), zoo.images(dtype=torch.float64)
    scores = cpath.score(model, images, "neuron_mct")
    empty = cpath.Pathway.from_masks({name: torch.zeros_like(v).bool() for name, v in scores.values.items()})
    assert affine_radius(model, images, empty).isinf().all()


def test_the_model_and_the_images_are_left_as_they_were():
    model, images = zoo.make("vgg"), zoo.images()
    pathway = cpath.find_pathway(model, images)
    with zoo.untouched(model):
        affine_radius(model, images, pathway, neurons=5)
    assert not images.requires_grad


def test_unusable_arguments_are_refused():
    model, images = zoo.make("sequential"), zoo.images()
    pathway = cpath.find_pathway(model, images)
    with pytest.raises(cpath.InputError, match="at least 1"):
        affine_radius(model, images, pathway, neurons=0)
    with pytest.raises(cpath.MaskError, match="images"):
        affine_radius(model, images, pathway[:2])


@pytest.mark.parametrize(
    ("activation", "kinks"),
    [
        (torch.nn.ReLU6(), (0, 6)),
        (torch.nn.ReLU6(inplace=True), (0, 6)),
        (torch.nn.Hardtanh(-0.5, 2.0), (-0.5, 2.0)),
        (torch.nn.LeakyReLU(0.1), (0,)),
        (torch.nn.Hardsigmoid(), (-3, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else None,
)
def test_every_point_where_a_slope_changes_bounds_the_ball(activation, kinks):
    """Of one layer: the least |w·x + b − kink| / ‖w‖ over its kept neurons and the kinks."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(12, 40, dtype=torch.float64)
    layer.weight.data *= 8
    layer.bias.data += 3
    last = torch.nn.Linear(40, 3, dtype=torch.float64)
    model = torch.nn.Sequential(torch.nn.Flatten(), layer, activation, last).eval()
    images = torch.rand(8, 3, 2, 2, dtype=torch.float64)
    sites = ("relu6", "hardtanh", "leaky_relu", "hardsigmoid")
    pathway = cpath.find_pathway(model, images, "random", sparsity=90, sites=sites)
    before = images.flatten(1) @ layer.weight.T + layer.bias
    distance = torch.stack([(before - kink).abs() for kink in kinks]) / layer.weight.norm(dim=1)
    kept = pathway.masks["2"]
    expected = distance.masked_fill(~kept, torch.inf).amin((0, 2))
    found = affine_radius(model, images, pathway)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    if len(kinks) > 1:  # the second of them is the nearest for some image
        alone = distance[0].masked_fill(~kept, torch.inf).amin(1)
        assert (alone > found * 1.01).any()


@pytest.mark.parametrize("curve", [torch.nn.GELU(), torch.nn.Sigmoid()])
def test_a_model_that_is_affine_nowhere_is_refused(curve):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), curve, torch.nn.Flatten(), torch.nn.Linear(144, 3)
    )
    pathway = cpath.find_pathway(model.eval(), zoo.images()[:2], "random", sparsity=50)
    with pytest.raises(cpath.SiteError, match=r"curved functions \((gelu|sigmoid)\)"):
        affine_radius(model, zoo.images()[:2], pathway)


def test_sites_without_a_pre_activation_are_refused():
    model = zoo.make("sequential")
    pathway = cpath.find_pathway(model, zoo.images()[:2], "random", sparsity=50, sites=torch.nn.Conv2d)
    with pytest.raises(cpath.SiteError, match="no pre-activation"):
        affine_radius(model, zoo.images()[:2], pathway)
