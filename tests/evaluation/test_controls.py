from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

import cpath
from cpath.evaluation import COPIES, faithfulness_transfer, other_answer, runner_up
from cpath.evaluation import copies as kinds
from tests import texts, zoo

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def restricted(model, images, pathway, one, other) -> Tensor:
    """The margin of class ``one`` over ``other`` (B,) in the restricted network."""
    with pathway.restrict(model), torch.no_grad():
        logits = model(images)
    return logits.gather(1, one[:, None])[:, 0] - logits.gather(1, other[:, None])[:, 0]


def nothing(scores: cpath.Scores) -> cpath.Pathway:
    return cpath.Pathway(torch.zeros_like(scores.flat).bool(), scores.layout, sites=scores.sites)


def everything(scores: cpath.Scores) -> cpath.Pathway:
    return cpath.Pathway(torch.ones_like(scores.flat).bool(), scores.layout, sites=scores.sites)


@pytest.fixture
def images() -> Tensor:
    return zoo.images(4, dtype=torch.float64)


def test_transfer_keeps_the_units_and_the_question_of_the_input(images):
    model = zoo.make("residual", torch.float64)
    scores = cpath.score(model, images)
    one, other = model(images).argmax(1), runner_up(model, images)
    found = faithfulness_transfer(model, images, scores, keep=(20, 60), least_rise=0, max_batch=3)
    assert list(found) == ["noise", "shift", "crop", "compression"]
    for name, of_copy in found.items():
        copy = COPIES[name](images)
        empty = restricted(model, copy, nothing(scores), one, other)
        whole = restricted(model, copy, everything(scores), one, other)
        for number, share in enumerate((20, 60)):
            answer = restricted(model, copy, scores.pathway(100 - share), one, other)
            expected = (answer - empty) / (whole - empty)
            torch.testing.assert_close(of_copy.sufficiency[:, number], expected, **CLOSE)
        assert torch.equal(of_copy.against, other)
    # The best other class of some copy is another one, so that the two questions differ.
    assert any(not torch.equal(runner_up(model, COPIES[name](images)), other) for name in COPIES)


def test_transfer_to_the_input_itself_is_its_faithfulness(images):
    model = zoo.make("vgg", torch.float64)
    scores = cpath.score(model, images, "neuron_intgrad", 0)
    own = cpath.faithfulness(model, images, scores)
    found = faithfulness_transfer(model, images, scores, copies={"same": lambda x: x}, necessity=True)
    torch.testing.assert_close(found["same"].sufficiency, own.sufficiency, **CLOSE)
    torch.testing.assert_close(found["same"].necessity, own.necessity, **CLOSE)


def test_copies_on_which_the_network_does_not_give_the_answer_itself_are_told_apart(images):
    model = zoo.make("residual", torch.float64)
    scores = cpath.score(model, images)
    own = cpath.faithfulness(model, images, scores, keep=(50,))

    def mixed(given: Tensor) -> Tensor:
        return torch.cat([given[:2], 0.05 * given[2:]])

    copies = {"mixed": mixed}
    every = faithfulness_transfer(model, images, scores, copies=copies, keep=(50,), least_rise=0)["mixed"]
    part = (every.whole - every.empty).abs() / (own.whole - own.empty).abs()
    limit = float(part.sort().values[1:3].mean())
    some = faithfulness_transfer(model, images, scores, copies=copies, keep=(50,), least_rise=limit)["mixed"]
    assert some.undefined.tolist() == (part < limit).tolist()
    assert 0 < some.undefined.sum() < 4
    torch.testing.assert_close(some.sufficiency[~some.undefined], every.sufficiency[~some.undefined], **CLOSE)
    for wrong in (-1, float("nan"), "0.2"):
        with pytest.raises(cpath.InputError, match="least_rise"):
            faithfulness_transfer(model, images, scores, least_rise=wrong)


def test_other_inputs_than_images_bring_their_own_copies():
    model, inputs = texts.encoder(), texts.texts()

    def gap(output: texts.Output) -> Tensor:
        return output.logits[:, 0] - output.logits[:, 3]

    scores = cpath.score(model, inputs, target=gap, sites="gelu")
    with pytest.raises(cpath.InputError, match=r"of images \(B, C, H, W\): pass copies="):
        faithfulness_transfer(model, inputs, scores, gap)

    def turned(given: texts.Encoding) -> dict[str, Tensor]:
        return {"input_ids": given["input_ids"].roll(1, 0), "attention_mask": given["attention_mask"].roll(1, 0)}

    found = faithfulness_transfer(model, inputs, scores, gap, copies={"next": turned}, keep=(30,))
    expected = cpath.faithfulness(model, turned(inputs), scores, gap, keep=(30,))
    torch.testing.assert_close(found["next"].sufficiency, expected.sufficiency, **CLOSE)


def test_another_answer_is_measured_by_the_strength_of_the_networks_own(images):
    model = zoo.make("residual", torch.float64)
    logits = model(images).detach()
    own = logits.argmax(1)
    other = logits.scatter(1, own[:, None], -torch.inf).argmax(1)
    assert torch.equal(runner_up(model, images, max_batch=3), other)
    scores = cpath.score(model, images, "neuron_mct", other)
    found = other_answer(model, images, scores, keep=(10, 50), max_batch=5)
    goal = logits.gather(1, own[:, None])[:, 0] - logits.gather(1, other[:, None])[:, 0]
    empty = restricted(model, images, nothing(scores), other, own)
    for number, share in enumerate((10, 50)):
        answer = restricted(model, images, scores.pathway(100 - share), other, own)
        torch.testing.assert_close(found.sufficiency[:, number], (answer - empty) / (goal - empty), **CLOSE)
    torch.testing.assert_close(found.whole, goal, **CLOSE)
    assert (found.target.tolist(), found.against.tolist()) == (other.tolist(), own.tolist())
    with pytest.raises(cpath.InputError, match="necessity was not measured"):
        _ = found.necessity


def test_a_ranking_that_is_learned_for_another_answer_gives_it_where_a_gradient_does_not():
    model, images = zoo.make("vgg"), zoo.images(6)
    other = runner_up(model, images)
    cmd = {}
    for method in (cpath.methods.LearnedRanking(steps=200), cpath.methods.NeuronMCT(), cpath.methods.Random()):
        scores = cpath.score(model, images, method, other)
        cmd[method.name] = other_answer(model, images, scores, keep=(5, 10, 20, 50)).cmd.mean()
    assert cmd["learned_ranking"] < 0.6 * cmd["neuron_mct"]
    assert cmd["learned_ranking"] < 0.6 * cmd["random"]


def test_the_own_answer_is_no_other_one(images):
    model = zoo.make("residual", torch.float64)
    with pytest.raises(cpath.InputError, match="another class than the predicted one"):
        other_answer(model, images, cpath.score(model, images))
    with pytest.raises(cpath.InputError, match="explain a function"):
        other_answer(model, images, cpath.score(model, images, target=lambda logits: logits[:, 0]))
    with pytest.raises(cpath.MaskError, match="belong to 2 inputs, the batch has 4"):
        other_answer(model, images, cpath.score(model, images)[:2])


# Copies


def test_copies_show_almost_the_same(images):
    for name, copy in COPIES.items():
        found = copy(images)
        assert found.shape == images.shape
        assert found.dtype == images.dtype
        assert not torch.equal(found, images)
        for index in range(4):  # whatever else is in the batch
            torch.testing.assert_close(copy(images[index : index + 1])[0], found[index], **CLOSE)
            if name in ("noise", "compression"):
                change, size = (found[index] - images[index]).std(), images[index].std()
                assert 0.01 < change / size < 0.15


def test_a_shift_moves_each_row_by_one_and_a_crop_shows_the_inside(images):
    moved = kinds.shift(images)
    assert torch.equal(moved[..., 1:], images[..., :-1])
    assert torch.equal(moved[..., 0], images[..., 0])
    ramp = torch.arange(32.0).expand(1, 3, 32, 32)
    inside = kinds.crop(ramp)[0, 0, 5]
    assert (inside[0], inside[-1]) == (2, 29)  # two of 32 pixels are cut off on each side
    assert (inside.diff() >= 0).all()


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (13, 9)])
def test_compression_rounds_the_cosines_of_blocks(size):
    image = zoo.images(1, 32, torch.float64)[..., : size[0], : size[1]]
    down, across = -(-size[0] // 8) * 8, -(-size[1] // 8) * 8
    padded = np.pad(image[0].numpy(), ((0, 0), (0, down - size[0]), (0, across - size[1])), mode="edge")
    step = 0.03 * float(image.std()) * np.add.outer(np.arange(1, 9), np.arange(1, 9))
    for row, column in np.ndindex(down // 8, across // 8):
        part = np.s_[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        frequencies = dctn(padded[part], axes=(1, 2), norm="ortho")
        padded[part] = idctn(np.round(frequencies / step) * step, axes=(1, 2), norm="ortho")
    found = kinds.compression(image)[0].numpy()
    np.testing.assert_allclose(found, padded[:, : size[0], : size[1]], rtol=1e-9, atol=1e-9)


def test_an_image_without_contrast_has_copies():
    for copy in COPIES.values():
        assert copy(torch.full((1, 3, 8, 8), 0.5)).isfinite().all()


def test_noise_follows_its_seed(images):
    assert torch.equal(kinds.noise(images), kinds.noise(images))
    assert not torch.equal(kinds.noise(images), kinds.noise(images, seed=1))
