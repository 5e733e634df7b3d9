import math
import threading
import warnings
from collections import UserList
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import cpath
from cpath.layout import SiteLayout
from tests import zoo
from tests.oracles import contribution as oracle
from tests.oracles import threshold as sets
from tests.oracles.networks import NETWORKS

TIGHT = {"rtol": 1e-9, "atol": 1e-12}


def random_masks(layout: SiteLayout, batch: int, share: float = 0.5, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(batch, *shape, generator=generator) < share for name, shape in layout.shapes.items()}


@pytest.fixture
def double() -> Tensor:
    return zoo.images(dtype=torch.float64)


# Restricting


@pytest.mark.parametrize("name", list(NETWORKS))
def test_restricted_network_multiplies_every_site_by_its_mask(name, double):
    model = zoo.make(name, torch.float64)
    network, weights = NETWORKS[name], dict(model.state_dict())
    layout = cpath.score(model, double, "active").layout
    for share in (0.0, 0.3, 0.7, 1.0):
        masks = random_masks(layout, 3, share)
        expected, seen = oracle.run(network, weights, double, masks=masks)
        with cpath.Pathway.from_masks(masks).restrict(model), cpath.observe(model) as observed:
            torch.testing.assert_close(model(double), expected, **TIGHT)
        for site, output in seen.items():
            torch.testing.assert_close(observed.activations[site], output, **TIGHT)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_pathway_gradient_is_the_gradient_of_the_restricted_network(name, double):
    model = zoo.make(name, torch.float64)
    network, weights = NETWORKS[name], dict(model.state_dict())
    scores = cpath.score(model, double, "neuron_mct", target=torch.tensor([0, 4, 2]))
    pathway = scores.pathway(60)
    source = double.clone().requires_grad_()
    logits, _ = oracle.run(network, weights, source, masks=pathway.masks)
    (expected,) = torch.autograd.grad(logits[0, 0] + logits[1, 4] + logits[2, 2], source)
    torch.testing.assert_close(cpath.pathway_gradient(model, double, pathway), expected, **TIGHT)


def test_pathway_gradient_defaults_to_the_class_of_the_unrestricted_network(double):
    model = zoo.make("residual", torch.float64)
    predicted = model(double).argmax(1)
    masks = random_masks(cpath.score(model, double).layout, 3, 0.2)
    pathway = cpath.Pathway.from_masks(masks)
    with pathway.restrict(model):
        assert not torch.equal(model(double).argmax(1), predicted)  # else the test would show nothing
    found = cpath.pathway_gradient(model, double, pathway)
    assert torch.equal(found, cpath.pathway_gradient(model, double, pathway, target=predicted))
    assert not torch.equal(found, cpath.pathway_gradient(model, double, pathway, target=4))


def test_pathway_gradient_at_sparsity_zero_of_all_neurons_is_the_gradient(double):
    model = zoo.make("vgg", torch.float64)
    layout = cpath.score(model, double).layout
    pathway = cpath.Pathway.from_masks(random_masks(layout, 1, 2.0))
    source = double.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(source)[:, 3].sum(), source)
    torch.testing.assert_close(cpath.pathway_gradient(model, double, pathway, 3), expected, **TIGHT)


class _Rows(nn.Module):
    """A model that notes how many images each of its passes has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, UserList()  # a list would be put back

    def forward(self, x):
        self.rows.append(len(x))
        return self.model(x)


def test_pathway_gradient_keeps_to_max_batch(double):
    model = _Rows(zoo.make("fire", torch.float64))
    pathway = cpath.find_pathway(model, double, sparsity=70)
    unnamed = replace(pathway, target=None)
    for used in (pathway, unnamed, pathway[:1]):
        whole = cpath.pathway_gradient(model, double, used)
        model.rows.clear()
        torch.testing.assert_close(cpath.pathway_gradient(model, double, used, max_batch=2), whole, **TIGHT)
        assert set(model.rows) == {2, 1}
    with pytest.raises(cpath.InputError, match="max_batch must be at least 1"):
        cpath.pathway_gradient(model, double, pathway, max_batch=0)


def test_pathway_of_one_image_applies_to_any_number(double):
    model = zoo.make("fire", torch.float64)
    pathway = cpath.find_pathway(model, double[:1], sparsity=70, target=2)
    repeated = cpath.Pathway.from_masks(
        {name: mask.expand(3, *mask.shape[1:]) for name, mask in pathway.masks.items()},
        target=pathway.target[[0] * 3],
    )
    with repeated.restrict(model):
        expected = model(double)
    with pathway.restrict(model):
        assert torch.equal(model(double), expected)
    assert torch.equal(
        cpath.pathway_gradient(model, double, pathway), cpath.pathway_gradient(model, double, repeated)
    )


def test_single_channel_keeps_the_signed_value_of_the_largest_magnitude():
    attribution = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]], [[2.0, 1.9]]]])
    assert cpath.single_channel(attribution).tolist() == [[[[-3.0, -2.0]]]]
    with pytest.raises(cpath.InputError, match=r"\(B, C, H, W\)"):
        cpath.single_channel(attribution[0])


def test_restricting_runs_in_eval_mode_and_restores_the_mode(images):
    model = zoo.make("vgg")
    pathway = cpath.find_pathway(model, images)
    with pathway.restrict(model):
        expected = model(images)
    model.train()
    with pathway.restrict(model):
        assert torch.equal(model(images), expected)
    assert all(module.training for module in model.modules())


def test_restriction_ends_with_the_context(images):
    model = zoo.make("residual")
    before = model(images)
    pathway = cpath.find_pathway(model, images, sparsity=95)
    with pathway.restrict(model):
        assert not torch.allclose(model(images), before)
    assert torch.equal(model(images), before)
    with pytest.raises(ZeroDivisionError), pathway.restrict(model):
        raise ZeroDivisionError
    assert torch.equal(model(images), before)


# Pathways that do not fit


def test_pathway_of_another_input_size_is_refused(images):
    model = zoo.make("fire")
    pathway = cpath.find_pathway(model, images)
    larger = zoo.images(size=12)
    with pytest.raises(
        cpath.MaskError, match=r"at site '1' the model gives \(4, 12, 12\).*\(4, 8, 8\).*input size"
    ):
        cpath.pathway_gradient(model, larger, pathway)
    with pytest.raises(cpath.MaskError, match="input size"), pathway.restrict(model):
        model(larger)


def test_pathway_of_another_batch_is_refused(images):
    model = zoo.make("fire")
    pathway = cpath.find_pathway(model, images)
    with pytest.raises(cpath.MaskError, match="belongs to 3 images, the batch has 2"), pathway.restrict(model):
        model(images[:2])
    for batch in (images[:2], images[:1]):
        with pytest.raises(cpath.MaskError, match=f"belongs to 3 inputs, the batch has {len(batch)}"):
            cpath.pathway_gradient(model, batch, pathway)


def test_pathway_of_another_model_is_refused(images):
    pathway = cpath.find_pathway(zoo.make("vgg"), images)
    with pytest.raises(cpath.MaskError, match="no mask for site 'relu': it belongs to another model"):
        cpath.pathway_gradient(zoo.make("residual"), images, pathway)
    # The first sites agree in name and size, the pathway has more.
    model = zoo.make("vgg")
    masks = random_masks(cpath.score(model, images).layout, 3)
    more = cpath.Pathway.from_masks({**masks, "later": torch.ones(3, 2, dtype=torch.bool)})
    with pytest.raises(cpath.MaskError, match="never reached site 'later'"), more.restrict(model):
        model(images)


def test_pathway_on_another_device_is_refused(images):
    model = zoo.make("vgg")
    pathway = cpath.find_pathway(model, images).to("meta")
    message = r"the pathway is on meta, the model on cpu: use pathway.to\('cpu'\)"
    with pytest.raises(cpath.MaskError, match=message), pathway.restrict(model):
        model(images)


def test_masks_that_make_no_pathway_are_refused():
    flags = torch.ones(2, 3, dtype=torch.bool)
    for masks, message in [
        ({}, "at least one site"),
        ({"a": flags, "b": flags[:1]}, r"the same B ≥ 1; got B of \[1, 2\]"),
        ({"a": flags[:0]}, "the same B ≥ 1"),
        ({"a": torch.tensor(True)}, "the same B ≥ 1"),
        ({"a": flags.float()}, "site 'a' must be boolean, not torch.float32"),
    ]:
        with pytest.raises(cpath.MaskError, match=message):
            cpath.Pathway.from_masks(masks)


# Values


def test_masks_are_views_in_forward_order_and_copies_of_what_came_in():
    masks = {"b": torch.ones(2, 3, dtype=torch.bool), "a": torch.zeros(2, 2, 2, dtype=torch.bool)}
    pathway = cpath.Pathway.from_masks(masks, target=torch.tensor([1, 0]))
    masks["b"].fill_(False)
    assert list(pathway.masks) == ["b", "a"]
    assert pathway.masks["b"].all()
    assert pathway.flat.tolist() == [[True] * 3 + [False] * 4] * 2
    assert len(pathway) == 2
    single = torch.ones(1, 3, dtype=torch.bool)
    alone = cpath.Pathway.from_masks({"a": single})
    single.fill_(False)
    assert alone.flat.all()


def test_sparsity_is_the_per_cent_of_all_neurons_pruned():
    masks = {"a": torch.tensor([[1, 0, 0], [1, 1, 1], [0, 0, 0]]).bool(), "b": torch.tensor([[1], [1], [0]]).bool()}
    assert cpath.Pathway.from_masks(masks).sparsity.tolist() == [50.0, 0.0, 100.0]


def test_slices_and_copies_on_a_device_keep_what_belongs_to_the_images(images):
    pathway = cpath.find_pathway(zoo.make("residual"), images, sparsity=80, target=[1, 2, 3])
    part = pathway[1:]
    assert torch.equal(part.flat, pathway.flat[1:])
    assert part.target.tolist() == [2, 3]
    assert (part.method, part.requested_sparsity) == ("neuron_mct", 80)
    moved = pathway.to("meta")
    assert moved.flat.device.type == moved.target.device.type == "meta"


def test_repr_tells_the_sparsity_per_cent():
    masks = {"a": torch.tensor([[True, False, False, False]] * 2)}
    assert repr(cpath.Pathway.from_masks(masks)) == (
        "Pathway(method='custom', images=2, sites=1, neurons=4, sparsity=75.00 %)"
    )
    masks = {"a": torch.tensor([[True, False, False, False], [True, True, False, False]])}
    assert "sparsity=50.00 to 75.00 %" in repr(cpath.Pathway.from_masks(masks))


# Measures


@st.composite
def two_pathways(draw) -> tuple[cpath.Pathway, cpath.Pathway, dict[str, Tensor]]:
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    batch = draw(st.integers(1, 3))

    def masks() -> dict[str, Tensor]:
        return {
            f"site {index}": torch.tensor(
                draw(st.lists(st.booleans(), min_size=batch * size, max_size=batch * size))
            ).view(batch, size)
            for index, size in enumerate(sizes)
        }

    alive = {name: mask * 0.5 for name, mask in masks().items()}
    return cpath.Pathway.from_masks(masks()), cpath.Pathway.from_masks(masks()), alive


def assert_numbers(found: Tensor, expected: list[float]) -> None:
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, nan_ok=True, rel=1e-12)


@given(two_pathways())
def test_jaccard_equals_that_of_sets(drawn):
    one, other, _ = drawn
    rows = list(zip(one.flat.tolist(), other.flat.tolist(), strict=True))
    expected = [sets.jaccard(sets.trues(a), sets.trues(b)) for a, b in rows]
    assert_numbers(one.jaccard(other), expected)
    assert_numbers(other.jaccard(one), expected)
    by_site = one.jaccard_by_site(other)
    assert list(by_site) == list(one.masks)
    for name, values in by_site.items():
        rows = zip(one.masks[name].tolist(), other.masks[name].tolist(), strict=True)
        assert_numbers(values, [sets.jaccard(sets.trues(a), sets.trues(b)) for a, b in rows])


@given(two_pathways())
def test_dead_share_equals_that_of_sets(drawn):
    pathway, _, activations = drawn
    dead = {name: (values == 0).tolist() for name, values in activations.items()}
    by_site = pathway.dead_share_by_site(activations)
    whole: list[list[set]] = [[set(), set()] for _ in range(len(pathway))]
    for name, mask in pathway.masks.items():
        expected = []
        for index, (kept, dead_here) in enumerate(zip(mask.tolist(), dead[name], strict=True)):
            a, d = sets.trues(kept), sets.trues(dead_here)
            expected.append(sets.share(a & d, a))
            whole[index][0] |= {(name, i) for i in a}
            whole[index][1] |= {(name, i) for i in d}
        assert_numbers(by_site[name], expected)
    assert_numbers(pathway.dead_share(activations), [sets.share(a & d, a) for a, d in whole])


def test_overlap_of_empty_pathways_is_nan():
    empty = cpath.Pathway.from_masks({"a": torch.zeros(1, 3, dtype=torch.bool)})
    assert math.isnan(float(empty.jaccard(empty)))
    assert math.isnan(float(empty.dead_share({"a": torch.ones(1, 3)})))


def test_overlap_goes_by_the_name_of_the_site_whatever_the_order():
    masks = {"a": torch.tensor([[True, False]]), "b": torch.tensor([[True, True]])}
    one = cpath.Pathway.from_masks(masks)
    other = cpath.Pathway.from_masks(dict(reversed(masks.items())))
    assert one.jaccard(other).tolist() == [1.0]
    assert {name: values.tolist() for name, values in one.jaccard_by_site(other).items()} == {
        "a": [1.0],
        "b": [1.0],
    }
    assert one.dead_share({"b": torch.zeros(1, 2), "a": torch.ones(1, 2)}).tolist() == [2 / 3]


def test_neuron_mct_and_active_neurons_have_no_dead_share(images):
    model = zoo.make("residual")
    with cpath.observe(model) as seen:
        model(images)
    for method in ("neuron_mct", "neuron_intgrad", "active"):
        pathway = cpath.find_pathway(model, images, method, 50)
        assert pathway.dead_share(seen.activations).tolist() == [0, 0, 0]
    dead = {name: (output == 0).flatten(1) for name, output in seen.activations.items()}
    base = torch.cat(list(dead.values()), 1).double().mean(1)
    random = cpath.find_pathway(model, images, "random", 0)
    torch.testing.assert_close(random.dead_share(seen.activations), base, rtol=0, atol=0.01)


def test_measures_of_pathways_that_do_not_belong_together_are_refused(images):
    model = zoo.make("fire")
    pathway = cpath.find_pathway(model, images)
    with pytest.raises(cpath.MaskError, match="different networks or input sizes"):
        pathway.jaccard(cpath.find_pathway(model, zoo.images(size=12)))
    with pytest.raises(cpath.MaskError, match="3 and 2 images"):
        pathway.jaccard_by_site(pathway[:2])
    with cpath.observe(model) as seen:
        model(images[:2])
    with pytest.raises(cpath.MaskError, match=r"site '1' have shape \(2, 4, 8, 8\).*other images"):
        pathway.dead_share(seen.activations)
    seen.activations.pop("6")
    with pytest.raises(cpath.MaskError, match="lack the site '6'"):
        pathway.dead_share_by_site(seen.activations)


def test_one_image_of_a_pathway_by_its_number():
    pathway = cpath.find_pathway(zoo.make("sequential"), zoo.images())
    for number in (0, 1, -1):
        assert torch.equal(pathway[number].flat, pathway.flat[[number]])
        assert torch.equal(pathway[number].target, pathway.target[[number]])


def test_one_image_by_a_number_of_numpy_or_several_by_a_tensor():
    pathway = cpath.find_pathway(zoo.make("sequential"), zoo.images())
    for number in (np.int64(1), np.uint8(1), torch.tensor(1)):
        assert len(pathway[number]) == 1
        assert torch.equal(pathway[number].flat, pathway.flat[1:2])
        assert torch.equal(pathway[number].target, pathway.target[1:2])
    chosen = pathway[torch.tensor([2, 0])]
    assert torch.equal(chosen.flat, pathway.flat[[2, 0]])
    assert torch.equal(pathway[torch.tensor([True, False, True])].target, pathway.target[[0, 2]])
    for wrong in (1.0, "1", None, [0]):
        with pytest.raises(cpath.InputError, match="a number, a slice or a tensor"):
            pathway[wrong]
    with pytest.raises(cpath.MissingImageError, match="no image 3"):
        pathway[np.int64(3)]


def test_activations_of_masks_are_one_name_or_several():
    masks = {"act": torch.ones(1, 3, dtype=torch.bool)}
    assert cpath.Pathway.from_masks(masks, sites="gelu").sites == ("gelu",)
    assert cpath.Pathway.from_masks(masks, sites=iter(["gelu", "relu"])).sites == ("gelu", "relu")
    with pytest.raises(cpath.UnknownNameError, match="unknown activation function 'gelo'"):
        cpath.Pathway.from_masks(masks, sites="gelo")


def test_a_restriction_without_effect_is_warned_of(images):
    model = zoo.make("residual")
    pathway = cpath.find_pathway(model, images)
    thread = threading.Thread(target=model, args=(images,))

    def elsewhere() -> None:
        with pathway.restrict(model):
            thread.start()
            thread.join()

    with pytest.warns(UserWarning, match="no site was reached") as told:
        elsewhere()
    assert told[0].filename == __file__
    with pytest.raises(ZeroDivisionError), warnings.catch_warnings(), pathway.restrict(model):
        warnings.simplefilter("error")
        raise ZeroDivisionError
