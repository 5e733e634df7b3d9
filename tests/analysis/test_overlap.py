from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.analysis import compare_pathways, response_preservation
from cpath.errors import InputError, MaskError
from tests import zoo


def _pathways(model, images, names=("neuron_mct", "random", "active")):
    return {name: cpath.find_pathway(model, images, name, sparsity=80) for name in names}


def test_measures_equal_those_computed_neuron_by_neuron():
    model, images = zoo.make("sequential"), zoo.images()
    pathways = _pathways(model, images)
    with cpath.observe(model) as seen:
        model(images)
    measures = compare_pathways(pathways, seen.activations)
    for image in range(len(images)):
        dead = {
            (site, i)
            for site, activation in seen.activations.items()
            for i, value in enumerate(activation[image].flatten().tolist())
            if value == 0
        }
        kept = {
            name: {
                (site, i)
                for site, mask in pathway.masks.items()
                for i, value in enumerate(mask[image].flatten().tolist())
                if value
            }
            for name, pathway in pathways.items()
        }
        for name, neurons in kept.items():
            share = len(neurons & dead) / len(neurons)
            assert measures[name, "dead_share"][image].item() == pytest.approx(share)
            total = sum(activation[image].numel() for activation in seen.activations.values())
            assert measures[name, "realised_sparsity"][image].item() == pytest.approx(
                100 * (1 - len(neurons) / total)
            )
            for other, theirs in kept.items():
                if other == name:
                    continue
                overlap = len(neurons & theirs) / len(neurons | theirs)
                assert measures[name, f"jaccard/{other}"][image].item() == pytest.approx(overlap)
                for site in seen.activations:
                    mine_here = {n for n in neurons if n[0] == site}
                    theirs_here = {n for n in theirs if n[0] == site}
                    either = len(mine_here | theirs_here)
                    found = measures[name, f"site_jaccard/{other}/{site}"][image].item()
                    if either:
                        assert found == pytest.approx(len(mine_here & theirs_here) / either)
                    else:
                        assert math.isnan(found)
            for site, activation in seen.activations.items():
                here = len({n for n in neurons if n[0] == site})
                found = measures[name, f"site_kept/{site}"][image].item()
                assert found == pytest.approx(100 * here / activation[image].numel())


def test_without_sites_only_the_whole_network_is_measured():
    model, images = zoo.make("sequential"), zoo.images()
    with cpath.observe(model) as seen:
        model(images)
    measures = compare_pathways(_pathways(model, images), seen.activations, by_site=False)
    assert {measure for _, measure in measures} == {
        "realised_sparsity",
        "dead_share",
        "jaccard/neuron_mct",
        "jaccard/random",
        "jaccard/active",
    }


def test_contribution_pathways_hold_no_dead_neuron_and_the_active_subnetwork_answers_as_the_network():
    model, images = zoo.make("sequential"), zoo.images()
    pathways = _pathways(model, images)
    with cpath.observe(model) as seen:
        model(images)
    measures = compare_pathways(pathways, seen.activations)
    assert measures["neuron_mct", "dead_share"].eq(0).all()
    assert measures["active", "dead_share"].eq(0).all()
    change, kept = response_preservation(model, images, pathways["active"])
    assert torch.allclose(change, torch.zeros_like(change), atol=1e-6)
    assert kept.all()


def test_response_change_is_relative_to_the_probability_of_the_target():
    model, images = zoo.make("sequential").double(), zoo.images().double()
    pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90, target=2)
    change, kept = response_preservation(model, images, pathway)
    with torch.no_grad():
        before = model(images)
        with pathway.restrict(model):
            after = model(images)
    for image in range(len(images)):
        p, q = before[image].softmax(0)[2], after[image].softmax(0)[2]
        assert change[image].item() == pytest.approx(((q - p) / p).item())
        assert kept[image].item() == (before[image].argmax() == after[image].argmax()).item()


def test_pathways_of_other_images_or_none_are_an_error():
    model, images = zoo.make("sequential"), zoo.images()
    with cpath.observe(model) as seen:
        model(images)
    one = cpath.find_pathway(model, images)
    with pytest.raises(MaskError, match="images"):
        compare_pathways({"a": one, "b": one[:1]}, seen.activations)
    with pytest.raises(InputError, match="at least one"):
        compare_pathways({}, seen.activations)


def test_a_model_that_changes_its_input_answers_as_one_that_does_not():
    model, images = zoo.make(zoo.Normalising), zoo.images()
    pathway, mine = cpath.find_pathway(model, images, sparsity=60), images.clone()
    change, kept = response_preservation(model, mine, pathway)
    assert torch.equal(mine, images)
    with torch.no_grad():
        before = model(images.clone())
        with pathway.restrict(model):
            after = model(images.clone())
    p, q = (logits.double().softmax(1).gather(1, pathway.target[:, None])[:, 0] for logits in (before, after))
    torch.testing.assert_close(change, q / p - 1)
    assert torch.equal(kept, before.argmax(1) == after.argmax(1))


def test_a_pathway_of_one_image_answers_for_any_number():
    model, images = zoo.make("sequential"), zoo.images()
    pathway = cpath.find_pathway(model, images[:1], target=3)
    change, kept = response_preservation(model, images, pathway)
    for image in range(len(images)):
        alone = response_preservation(model, images[image : image + 1], pathway)
        torch.testing.assert_close(change[image : image + 1], alone[0], rtol=1e-5, atol=1e-6)
        assert torch.equal(kept[image : image + 1], alone[1])


class Share(nn.Module):
    """The neurons' shares of their sum: 0/0 where none is left."""

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(x.flatten(1))
        return z[:, :4] / z.sum(1, keepdim=True)


def test_unusable_images_and_logits_are_refused():
    model, images = Share(), zoo.images()
    pathway = cpath.find_pathway(model, images, "active", sites=":relu")
    with pytest.raises(InputError, match="NaN or infinite"):
        response_preservation(model, images * float("nan"), pathway)
    nothing = cpath.Pathway.from_masks({name: mask & False for name, mask in pathway.masks.items()})
    with pytest.raises(InputError, match="logits hold NaN"):
        response_preservation(model, images, nothing)
    with pytest.raises(InputError, match=r"not logits \(3, classes\)"):
        response_preservation(model, images, pathway, torch.zeros(2, 4))
