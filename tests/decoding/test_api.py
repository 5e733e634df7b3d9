from __future__ import annotations

import random
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.data import Normalisation
from cpath.decoding import Channel, Logit, Neuron, decode
from cpath.decoding.network import Network
from cpath.decoding.objectives import Task
from tests import zoo

SIZE = 16
SHAPE = (3, SIZE, SIZE)


# The range of the zoo's images: some of its neurons are dead on anything tamer.
WIDE = Normalisation((0.5,) * 3, (0.1,) * 3)


def _decode(model, pathways, objectives=None, **settings):
    settings = {"shape": SHAPE, "steps": 4, "normalisation": WIDE} | settings
    return decode(model, pathways, objectives, **settings)


def _pathway(model: nn.Module, size: int = SIZE, sparsity: float = 50, batch: int = 1) -> cpath.Pathway:
    return cpath.find_pathway(model, zoo.images(batch, size), "neuron_mct", sparsity)


def _masks(model: nn.Module, size: int = SIZE) -> dict[str, Tensor]:
    """Masks that keep everything."""
    return {name: torch.ones_like(mask) for name, mask in _pathway(model, size).masks.items()}


def _brightened(image: Tensor, start: Tensor) -> Tensor:
    """(C, H, W) bool: where a picture departs from what it started from."""
    return (image - start).abs() > 1e-6


# The masks are honoured


class TwoEyes(nn.Module):
    """Channel 0 sees the red of the image, channel 1 the green, each pixel by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1)
        self.conv.bias.data.zero_()
        self.fc = nn.Linear(2, 2)
        self.fc.weight.data.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


def test_a_mask_that_keeps_one_channel_lets_the_picture_change_through_it_alone():
    model = TwoEyes()
    masks = {":relu": torch.zeros(1, 2, SIZE, SIZE, dtype=torch.bool)}
    masks[":relu"][:, 1] = True
    pathway = cpath.Pathway.from_masks(masks, target=torch.tensor([0]))
    pixels = _decode(model, pathway, parametrisation=_raw_pixels, normalisation=None).images[0]
    changed = _brightened(pixels, torch.full(SHAPE, 0.5))
    assert changed[1].all()
    assert not changed[0].any()
    assert not changed[2].any()


def _raw_pixels(channels, height, width):
    """Without Lucent's correlation of colours, so that a channel is a channel."""
    tensor = torch.zeros(1, channels, height, width, requires_grad=True)
    return [tensor], lambda: torch.sigmoid(tensor)


def test_a_mask_that_keeps_some_places_lets_the_picture_change_there_alone():
    masks = {":relu": torch.zeros(1, 2, SIZE, SIZE, dtype=torch.bool)}
    masks[":relu"][0, 0, 3, 5] = masks[":relu"][0, 1, 9, 2] = True
    pathway = cpath.Pathway.from_masks(masks, target=torch.tensor([1]))
    pixels = _decode(TwoEyes(), pathway, parametrisation=_raw_pixels, normalisation=None).images[0]
    assert _brightened(pixels, torch.full(SHAPE, 0.5)).nonzero().tolist() == [[0, 3, 5], [1, 9, 2]]


def test_the_objective_sees_the_restricted_site(model):
    seen = []
    pathway = _pathway(model)
    site = next(iter(pathway.masks))

    def spy(layer):
        seen.append(layer(site).detach().clone())
        return -layer(site).mean()

    _decode(model, pathway, spy)
    assert len(seen) > 4
    assert all((values[~pathway.masks[site]] == 0).all() for values in seen)
    assert seen[-1].any()


def test_pictures_raise_the_response_of_their_own_restricted_network(model):
    pathway = _pathway(model, sparsity=30)
    made = _decode(model, pathway, steps=32)
    assert not made.no_gradient.any()
    assert made.images.shape == (1, *SHAPE)
    assert made.images.min() >= 0
    assert made.images.max() <= 1
    start = _decode(model, pathway, steps=1)
    with torch.no_grad(), pathway.restrict(model):
        before, after = (model(WIDE.apply(images))[0, pathway.target] for images in (start.images, made.images))
    assert after > before


# What is left behind


def test_the_model_is_left_as_it_was_and_still_deep_copies(model):
    import copy

    pathway = _pathway(model)
    model.train()
    with zoo.untouched(model):
        _decode(model, [None, pathway], Logit(1))
    assert not any(module._forward_hooks for module in model.modules())
    copy.deepcopy(model)


def test_the_model_is_left_as_it_was_when_it_breaks():
    model = zoo.make(zoo.Raising)
    model.at = 6  # within the optimisation, where Lucent swallows every RuntimeError
    model.error = RuntimeError
    model.counter.value = 0
    with zoo.untouched(model), pytest.raises(RuntimeError, match="breaks on purpose"):
        _decode(model, None, Logit(0), steps=20)


def test_the_global_random_states_are_restored_and_the_same_seed_gives_the_same_picture(model):
    first = _decode(model, None, Logit(1), seed=3)
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002
    random.seed(77)
    with zoo.untouched(model):
        again = _decode(model, None, Logit(1), seed=3)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, _decode(model, None, Logit(1), seed=4).images)


def test_nothing_is_printed_or_shown(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _decode(zoo.make("sequential"), None, Logit(1))
    assert capsys.readouterr() == ("", "")


def test_works_where_gradients_are_switched_off():
    model = zoo.make("sequential")
    with torch.no_grad():
        one = _decode(model, None, Logit(1))
    with torch.inference_mode():
        other = _decode(model, None, Logit(1))
    assert torch.equal(one.images, other.images)


# Batches


def test_a_batch_equals_its_images_one_by_one_at_any_size_of_batch():
    model = zoo.make("residual")
    pathway = _pathway(model, batch=3, sparsity=30)
    settings = {"steps": 8, "transforms": [_roll]}
    together = _decode(model, [None, pathway], [Logit(2)] * 4, **settings).images
    for row, one in enumerate([None, pathway[0:1], pathway[1:2], pathway[2:3]]):
        alone = _decode(model, one, Logit(2), **settings).images
        assert torch.allclose(together[row], alone[0], atol=1e-4)
    assert torch.allclose(
        _decode(model, [None, pathway], Logit(2), max_batch=2, **settings).images, together, atol=1e-4
    )


def _roll(pixels):
    return torch.roll(pixels, int(np.random.choice(4)), 3)  # noqa: NPY002 (as Lucent draws)


def test_every_pathway_of_a_batch_has_its_own_target_unless_objectives_say_otherwise():
    model = zoo.make("sequential")
    pathway = cpath.find_pathway(model, zoo.images(2, SIZE), "neuron_mct", 20, target=torch.tensor([1, 3]))
    by_default = _decode(model, pathway)
    said = _decode(model, pathway, [Logit(1), Logit(3)])
    assert torch.equal(by_default.images, said.images)


def test_on_step_tells_the_steps_of_every_image_that_are_done_and_their_total():
    model, counted = zoo.make("sequential"), []

    def note(done, total):
        counted.append((done, total))

    _decode(model, [None] * 3, Logit(0), steps=5, max_batch=2, on_step=note)
    assert counted == [(done, 15) for done in (2, 4, 6, 8, 10, 11, 12, 13, 14, 15)]
    counted.clear()
    with pytest.warns(RuntimeWarning, match="1 of 2"):
        _decode(model, [_blocked(model), None], Logit(0), steps=3, on_step=note)
    assert counted == [(1, 3), (2, 3), (3, 3)]  # there is nothing to do for an image without a gradient


def test_ctrl_c_ends_the_optimisation_instead_of_passing_for_its_end():
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _decode(zoo.make("sequential"), None, Logit(0), on_step=interrupt)


# Sizes, parametrisations, transforms


@pytest.mark.parametrize("size", [28, 32, 64])
def test_every_size_is_rendered_as_it_is(size):
    model = zoo.make("vgg")
    sizes = set()

    def spy(pixels):
        sizes.add(tuple(pixels.shape[-2:]))
        return pixels

    made = _decode(model, _pathway(model, size), shape=(3, size, size), transforms=[spy])
    assert sizes == {(size, size)}
    assert made.images.shape == (1, 3, size, size)


@pytest.mark.parametrize("parametrisation", cpath.decoding.PARAMETRISATIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_parametrisation_makes_any_number_of_channels(parametrisation, channels):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 3)).eval()
    images = torch.rand(1, channels, 12, 12)
    pathway = cpath.find_pathway(model, images, "neuron_mct", 20)
    made = decode(
        model,
        pathway,
        shape=(channels, 12, 12),
        parametrisation=parametrisation,
        steps=3,
        normalisation=Normalisation((0.4,) * channels, (0.2,) * channels),
    )
    assert made.images.shape == (1, channels, 12, 12)
    assert not made.no_gradient.any()


def _logarithms(channels, height, width):
    """Undefined as soon as a step goes the wrong way."""
    tensor = torch.full((1, channels, height, width), 1e-6, requires_grad=True)
    return [tensor], lambda: tensor.log()


def test_images_need_not_be_square():
    model = zoo.make("sequential")
    pathway = cpath.find_pathway(model, torch.randn(1, 3, 12, 20), "neuron_mct", 20)
    assert _decode(model, pathway, shape=(3, 12, 20)).images.shape == (1, 3, 12, 20)
    with pytest.raises(cpath.InputError, match="square"):
        _decode(model, pathway, shape=(3, 12, 20), parametrisation="cppn")


def test_normalisation_stands_between_the_picture_and_the_model():
    model = zoo.make("sequential")
    seen = []
    handle = model[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    made = _decode(model, None, Logit(1), normalisation=normalisation, steps=1)
    handle.remove()
    pixels = normalisation.invert(seen[0])
    assert torch.allclose(pixels.mean((0, 2, 3)), torch.full((3,), 0.5), atol=0.02)
    assert torch.allclose(pixels, made.images, atol=0.1)


def test_lucents_own_objectives_and_transforms_work_on_names_of_sites(model):
    from lucent.optvis import objectives, transform

    site = next(iter(_pathway(model).masks))
    mine = _decode(model, None, Channel(site, 1))
    assert torch.equal(mine.images, _decode(model, None, objectives.channel(site, 1)).images)
    both = objectives.channel(site, 1) + 2 * objectives.channel("labels", 0)
    jittered = _decode(model, None, both, transforms=[transform.jitter(3)])
    assert not jittered.no_gradient.any()


def test_models_in_double_precision():
    model = zoo.make("sequential", torch.float64)
    assert _decode(model, None, Logit(0)).images.dtype == torch.float32


# Objectives


def test_every_site_of_every_model_has_an_objective(model):
    # Functional and reused activations have no module of their own, so that Lucent alone could not name them.
    sites = list(_pathway(model).masks)
    made = _decode(model, [None] * len(sites), [Channel(site, 0) for site in sites])
    assert len(made) == len(sites)
    assert (~made.no_gradient).sum() >= len(sites) / 2  # small models have dead channels


def test_a_neuron_is_moved_by_what_it_sees_alone():
    model = zoo.make("fire")
    changed = _brightened(
        _decode(model, None, Neuron("1", (2, 4, 9)), parametrisation=_raw_pixels).images[0], torch.full(SHAPE, 0.5)
    ).any(0)
    assert changed.any()
    rows, columns = changed.nonzero(as_tuple=True)
    assert set(rows.tolist()) <= {3, 4, 5}
    assert set(columns.tolist()) <= {8, 9, 10}


def test_an_in_place_change_behind_the_site_does_not_change_the_objective():
    model = zoo.make(zoo.InplaceSkip)
    site = ":relu"
    seen = []

    def spy(layer):
        seen.append((layer(site).detach().clone(), layer("input").detach().clone()))
        return -layer(site).mean()

    _decode(model, None, spy)
    with torch.no_grad(), cpath.observe(model) as observed:
        model(WIDE.apply(seen[-1][1]))
    assert torch.allclose(seen[-1][0], observed.activations[site], atol=1e-6)


@pytest.mark.parametrize("kind", [zoo.Discarding, zoo.Normalising, zoo.Scaled])
def test_unusual_models_are_decoded(kind):
    model = zoo.make(kind)
    pathway = _pathway(model, sparsity=20)
    with zoo.untouched(model):
        assert not _decode(model, pathway).no_gradient.any()


def test_other_activations_come_from_the_pathway():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)).eval()
    pathway = cpath.find_pathway(model, zoo.images(1, SIZE), "neuron_mct", 50, sites="gelu")
    assert not _decode(model, pathway, Channel("1", 0)).no_gradient.any()


# Objectives without a gradient


def _blocked(model: nn.Module) -> cpath.Pathway:
    masks = {name: torch.zeros_like(mask) for name, mask in _masks(model).items()}
    return cpath.Pathway.from_masks(masks, target=torch.tensor([0]))


def test_an_objective_without_a_gradient_is_reported_and_gives_no_image(model):
    with pytest.warns(RuntimeWarning, match="1 of 2 objectives have no gradient"):
        made = _decode(model, [_blocked(model), None], Logit(0))
    assert made.no_gradient.tolist() == [True, False]
    assert made.images[0].isnan().all()
    assert made.images[1].isfinite().all()


def test_objectives_that_all_lack_a_gradient_are_reported_too():
    model = zoo.make("sequential")
    with pytest.warns(RuntimeWarning, match="1 of 1"):
        assert _decode(model, _blocked(model)).no_gradient.all()


class Picky(nn.Module):
    """Its only neuron lives where the image is far from grey."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(x.flatten(1).std(1, keepdim=True) - 0.1))


def test_what_is_dead_at_grey_starts_from_stronger_noise():
    torch.manual_seed(0)
    model = Picky()
    model.fc.weight.data.fill_(1.0)
    made = _decode(model, None, Logit(0), normalisation=None)
    assert not made.no_gradient.any()
    assert made.attempt.tolist() == [2]
    with pytest.warns(RuntimeWarning):
        assert _decode(model, None, Logit(0), normalisation=None, tries=1).no_gradient.all()


class Faint(nn.Module):
    """Its logits hardly depend on the image: 1e-12 a pixel, far below Adam's ε."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).flatten(1)[:, :2] * 1e-12


def test_a_small_gradient_moves_the_picture_as_far_as_a_large_one():
    made = _decode(Faint(), None, Logit(0), parametrisation=_raw_pixels, normalisation=None).images[0]
    assert made[0, 0, 0] > 0.54  # four steps of 0.05 before the sigmoid


# Bad input: said before anything is rendered


def test_a_pathway_of_another_size_or_model_is_refused_before_rendering():
    model = zoo.make("sequential")

    def rendered(done, total):
        pytest.fail("rendered")

    with pytest.raises(cpath.MaskError, match="another model or input size"):
        _decode(model, _pathway(model, 8), on_step=rendered)
    with pytest.raises(cpath.MaskError):
        _decode(model, _pathway(zoo.make("residual")), on_step=rendered)


def test_a_size_that_the_model_cannot_take_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with pytest.raises(cpath.InputError, match=r"cannot take images \(3, 16, 16\)"):
        _decode(model, None, Logit(0))


@pytest.mark.parametrize(
    ("pathways", "objectives", "settings", "message"),
    [
        (None, None, {}, "which class"),
        ([], Logit(0), {}, "nothing to decode"),
        (None, [Logit(0), Logit(1)], {}, "2 objectives for 1"),
        (None, Logit(5), {}, "asks for"),
        (None, Logit(-1), {}, "asks for"),
        (None, Channel("1", 4), {}, "gives"),
        (None, Neuron("1", (0, 16, 0)), {}, "gives"),
        (None, Neuron("8", (0, 0)), {}, "gives"),
        (None, lambda layer: layer("1"), {}, "one number"),
        (None, Logit(0), {"steps": 0}, "steps must be at least 1"),
        (None, Logit(0), {"learning_rate": 0}, "learning_rate"),
        (None, Logit(0), {"learning_rate": float("inf")}, "learning_rate"),
        (None, Logit(0), {"seed": 2**32}, "seed must be below"),
        (None, Logit(0), {"tries": 0}, "tries must be at least 1"),
        (None, Logit(0), {"max_batch": 1.5}, "max_batch must be at least 1"),
        (None, Logit(0), {"shape": (16, 16)}, "shape"),
        (None, Logit(0), {"transforms": [lambda pixels: F.pad(pixels, [2] * 4)]}, "change the size"),
        (None, Logit(0), {"parametrisation": lambda c, h, w: _raw_pixels(c, h, 8)}, "parametrisation makes"),
        (None, Logit(0), {"parametrisation": lambda c, h, w: _logarithms(c, h, w)}, "diverged"),
    ],
)
def test_bad_input_is_refused(pathways, objectives, settings, message):
    with pytest.raises(cpath.InputError, match=message):
        _decode(zoo.make("sequential"), pathways, objectives, **settings)


def test_smaller_pixels_are_resized_as_lucent_does():
    model = zoo.make("residual")
    pathway = _pathway(model, sparsity=30)
    made = _decode(model, pathway, size=6, steps=8)
    assert made.images.shape == (1, *SHAPE)
    raw = _decode(model, pathway, size=6, steps=8, parametrisation=_raw_pixels)
    small = raw.images[
        :, :, :: SIZE - 1, :: SIZE - 1
    ]  # aligned corners: those of the pixels are those of the image
    again = F.interpolate(raw.images, (6, 6), mode="bilinear", align_corners=True)
    assert torch.allclose(again[:, :, ::5, ::5], small, atol=1e-6)
    # 15 steps between the corners of the image and 5 between those of the pixels: every third is a pixel itself.
    pixels = raw.images[:, :, ::3, ::3]
    assert torch.allclose(
        F.interpolate(pixels, SHAPE[1:], mode="bilinear", align_corners=True), raw.images, atol=1e-5
    )


def test_lucents_own_transforms_go_with_a_size():
    model = zoo.make("residual")
    settings = {"transforms": cpath.decoding.standard_transforms(), "steps": 3}
    made = _decode(model, _pathway(model, sparsity=30), size=12, **settings)
    assert made.images.shape == (1, *SHAPE)
    assert torch.equal(made.images, _decode(model, _pathway(model, sparsity=30), size=12, **settings).images)
    with pytest.raises(cpath.InputError, match="change the size"):
        _decode(model, None, Logit(0), **settings)


def test_only_uncorrelated_pixels_change_in_one_colour_alone():
    """The network sees red alone: what else changes does by the correlation of natural colours."""

    class Red(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0].mean((1, 2)), x[:, 0].mean((1, 2)).relu()], 1)

    changed = {}
    for name in ("pixel", "pixel_uncorrelated"):
        start, made = (_decode(Red(), None, Logit(0), parametrisation=name, steps=n).images[0] for n in (1, 9))
        changed[name] = ((made - start).abs().amax((1, 2)) > 1e-3).tolist()
    assert changed == {"pixel": [True, True, True], "pixel_uncorrelated": [True, False, False]}


def test_unknown_names_are_refused_with_the_close_ones():
    model = zoo.make("residual")
    with pytest.raises(cpath.UnknownNameError, match=r"layer1\.0\.relu"):
        _decode(model, None, Channel("layer1.0.rel", 0))
    with pytest.raises(cpath.UnknownNameError, match="fourier"):
        _decode(model, None, Logit(0), parametrisation="furier")


def test_pathways_of_different_activations_are_refused():
    model = zoo.make("sequential")
    masks = _masks(model)
    with pytest.raises(cpath.MaskError, match="different activation"):
        _decode(
            model,
            [cpath.Pathway.from_masks(masks), cpath.Pathway.from_masks(masks, sites=("gelu",))],
            Logit(0),
        )


def test_a_scripted_model_is_refused():
    with pytest.raises(cpath.SiteError, match="scripted"):
        _decode(torch.jit.script(zoo.sequential()), None, Logit(0))


def test_without_lucent_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lucent.optvis.param.images", None)
    with pytest.raises(cpath.MissingPackageError, match=r"pip install 'torch-lucent>=0\.1\.8'"):
        _decode(zoo.make("sequential"), None, Logit(0))


def test_what_is_pruned_stands_at_the_baselines_of_their_own_pathways(model):
    network, other = model.eval(), zoo.images(1, SIZE) + 1
    with cpath.observe(network) as seen, torch.no_grad():
        network(other)
    nothing = {name: torch.zeros_like(mask) for name, mask in _masks(network).items()}
    fixed, free = (
        cpath.Pathway.from_masks({n: m if keep else ~m for n, m in nothing.items()}, baseline=baseline)
        for keep, baseline in ((True, seen.activations), (False, None))
    )
    tasks = [Task(pathway, Logit(1)) for pathway in (fixed, None, free)]
    run = Network(network, tasks, "relu", None)._runner(tasks)
    outputs: dict[str, Tensor] = {}
    pixels = zoo.images(1, SIZE).expand(3, -1, -1, -1)
    with torch.no_grad():
        logits = run(pixels, {name: partial(outputs.__setitem__, name) for name in nothing})

        torch.testing.assert_close(logits[:1], network(other.clone()), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits[1:], network(pixels[1:].clone()), rtol=1e-4, atol=1e-5)
    for name, value in seen.activations.items():
        assert torch.equal(outputs[name][0], value[0])
