"""A text model, from token ids to pathways: every method against values computed by hand, one text at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import cpath
from tests import texts, zoo

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
NODES = [(0.1, 0.2), (0.3, 0.2), (0.5, 0.2), (0.7, 0.2), (0.9, 0.2)]  # five midpoints

Text = tuple[texts.Encoder, Tensor, Tensor, int]


def each_text(model: texts.Encoder, target: int | None = None) -> list[Text]:
    """The model, and each text's ids, mask and class."""
    encoding = texts.texts()
    pairs = list(zip(encoding["input_ids"], encoding["attention_mask"], strict=True))
    found = [int(texts.by_hand(model, *pair)[0].argmax()) if target is None else target for pair in pairs]
    return [(model, *pair, label) for pair, label in zip(pairs, found, strict=True)]


def hidden(text: Text) -> Tensor:
    return texts.by_hand(*text[:3])[1]


def logits(text: Text, values: Tensor) -> Tensor:
    return texts.by_hand(*text[:3], values)[0]


def slope(text: Text, values: Tensor) -> Tensor:
    values = values.detach().requires_grad_()
    return torch.autograd.grad(logits(text, values)[text[3]], values)[0]


def mct(text: Text) -> Tensor:
    return (hidden(text) * slope(text, hidden(text))).abs()


def intgrad(text: Text) -> Tensor:
    z = hidden(text)
    return (z * sum(weight * slope(text, alpha * z) for alpha, weight in NODES)).abs()


def greedy(text: Text, rounds: int = 3, power: float = 2.0) -> Tensor:
    """Round of removal of each neuron, from 1; 0 of those that are dead."""
    z, removed = hidden(text), torch.zeros(hidden(text).shape)
    for done in range(1, rounds + 1):
        left = (removed == 0) & (z != 0)
        worth = (z * left * slope(text, z * left)).abs()
        leave = int(((rounds - done) / rounds) ** power * int((z != 0).sum()))
        weakest = worth[left].sort().values[: int(left.sum()) - leave]
        removed[left & (worth <= weakest[-1])] = done
    return removed


def dgr(text: Text, iterations: int = 5, gamma: float = 0.01) -> Tensor | None:
    """The best gates of one attempt; None if no iteration keeps the class."""
    z = hidden(text)
    whole = logits(text, z).softmax(0)
    gates, best, lowest = torch.ones_like(z).requires_grad_(), None, math.inf
    optimiser = torch.optim.SGD([gates], lr=0.01, momentum=0.9)
    for _ in range(iterations):
        optimiser.zero_grad()
        (-(whole * logits(text, z * gates).log_softmax(0)).sum() + gamma * gates.sum()).backward()
        optimiser.step()
        with torch.no_grad():
            gates.clamp_(0, 100)
            now = logits(text, z * gates)
            loss = float(-(whole * now.log_softmax(0)).sum() + gamma * gates.sum())
        if now.argmax() == whole.argmax() and loss < lowest:
            best, lowest = gates.detach().clone(), loss
    return best


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("target", [None, 2])
def test_scores_of_token_ids_equal_those_computed_by_hand(frozen, target):
    model = texts.encoder().requires_grad_(not frozen)
    by_hand = each_text(model, target)
    expected = {
        "neuron_mct": (cpath.methods.NeuronMCT(), mct),
        "neuron_intgrad": (cpath.methods.NeuronIntGrad(nodes=5, rule="midpoint"), intgrad),
        "active": (cpath.methods.Active(), lambda text: (hidden(text) != 0).double()),
    }
    for method, oracle in expected.values():
        scores = cpath.score(model, texts.texts(), method, target, sites="gelu")
        assert list(scores.values) == ["act"]
        torch.testing.assert_close(scores.values["act"], torch.stack([*map(oracle, by_hand)]), **CLOSE)
        assert scores.target.tolist() == [text[3] for text in by_hand]
    rounds = cpath.score(model, texts.texts(), cpath.methods.Greedy(rounds=3), target, sites="gelu").values["act"]
    assert torch.equal(rounds.floor(), torch.stack([*map(greedy, by_hand)]).double())


def test_residuals_of_token_ids_equal_those_computed_by_hand():
    model = texts.encoder()
    method = cpath.methods.NeuronIntGrad(nodes=5, rule="midpoint")
    scores = cpath.score(model, texts.texts(), method, 1, sites="gelu")
    for text, found in zip(each_text(model, 1), scores.residual["act"], strict=True):
        z = hidden(text)
        drop = logits(text, z)[1] - logits(text, 0 * z)[1]
        total = (z * sum(weight * slope(text, alpha * z) for alpha, weight in NODES)).sum()
        assert 1e-6 < float(found) < 0.5
        assert float(found) == pytest.approx(float((total - drop).abs() / drop.abs()), rel=1e-7)


def test_gates_of_token_ids_equal_those_computed_by_hand():
    model = texts.encoder()
    scores = cpath.score(model, texts.texts(), cpath.methods.DGR(iterations=5, retries=0), sites="gelu")
    for text, found in zip(each_text(model), scores.values["act"], strict=True):
        expected = dgr(text)
        assert expected is not None
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_every_method_gives_a_batch_of_texts_what_it_gives_each_text(method, tmp_path):
    model = texts.encoder()
    encoding = texts.texts()
    whole = cpath.score(model, encoding, method, sites="gelu")
    singly = [
        cpath.score(model, {key: value[row : row + 1] for key, value in encoding.items()}, method, sites="gelu")
        for row in range(3)
    ]
    torch.testing.assert_close(whole.flat, torch.cat([one.flat for one in singly]), **CLOSE)
    small = cpath.score(model, encoding, method, sites="gelu", max_batch=2)
    torch.testing.assert_close(small.flat, whole.flat, **CLOSE)
    whole.save(tmp_path / "scores")
    assert torch.equal(cpath.Scores.load(tmp_path / "scores").flat, whole.flat)


def test_every_method_leaves_a_text_model_and_its_inputs_as_they_were(method):
    model, encoding = texts.encoder().train(), texts.texts()
    with zoo.untouched(model):
        pathway = cpath.find_pathway(model, encoding, method, 50, sites="gelu")
        with pathway.restrict(model), torch.no_grad():
            model(**encoding)
    assert all(torch.equal(encoding[key], value) for key, value in texts.texts().items())


def test_a_text_model_restricted_to_a_loaded_pathway_answers_as_computed_by_hand(tmp_path):
    model = texts.encoder()
    cpath.find_pathway(model, texts.texts(), "neuron_intgrad", 60, sites="gelu").save(tmp_path / "pathway")
    pathway = cpath.Pathway.load(tmp_path / "pathway")
    with pathway.restrict(model):
        found = model(**texts.texts()).logits
    for text, row, mask in zip(each_text(model), found, pathway.masks["act"], strict=True):
        assert mask.sum() == 16
        torch.testing.assert_close(row.detach(), logits(text, hidden(text) * mask), **CLOSE)
    change, kept = cpath.analysis.response_preservation(model, texts.texts(), pathway)
    for text, row, now, same in zip(each_text(model), found, change, kept, strict=True):
        before, after = (values.softmax(0)[text[3]] for values in (logits(text, hidden(text)), row.detach()))
        assert float(now) == pytest.approx(float(after / before) - 1, rel=1e-9)
        assert bool(same) == (int(row.argmax()) == text[3])


def embedded(model: texts.Encoder) -> dict[str, Tensor]:
    """The texts as embeddings, which have a gradient."""
    encoding = texts.texts()
    embeddings = model.tokens(encoding["input_ids"]).detach()
    return {"inputs_embeds": embeddings, "attention_mask": encoding["attention_mask"]}


DRAWN = {"random", "dgr_random_init", "learned_ranking"}  # from the bytes of the input itself


@pytest.mark.parametrize("name", [name for name in cpath.methods.names() if name not in DRAWN])
def test_embeddings_get_the_scores_of_their_tokens(name):
    model, method = texts.encoder(), zoo.quick(name)
    tokens = cpath.score(model, texts.texts(), method, sites="gelu")
    embeddings = cpath.score(model, embedded(model), method, sites="gelu")
    torch.testing.assert_close(embeddings.flat, tokens.flat, **CLOSE)


def test_attributions_of_embeddings_equal_plain_autograd():
    model = texts.encoder()
    given = embedded(model)
    labels = model(**given).logits.argmax(1)
    nodes = [(node + 0.5) / 4 for node in range(4)]

    def slopes(embeddings: Tensor) -> Tensor:
        leaf = embeddings.detach().requires_grad_()
        found = model(inputs_embeds=leaf, attention_mask=given["attention_mask"]).logits
        return torch.autograd.grad(found[range(3), labels].sum(), leaf)[0]

    x = given["inputs_embeds"]
    expected = {
        "gradients": slopes(x),
        "input_mct": x * slopes(x),
        "input_intgrad": x * sum(slopes(node * x) for node in nodes) / 4,
    }
    for name, values in expected.items():
        settings = {"nodes": 4, "rule": "midpoint"} if name == "input_intgrad" else {}
        found = cpath.attribute(model, given, name, **settings)
        assert list(found) == ["inputs_embeds", "attention_mask"]
        assert found["attention_mask"] is None
        torch.testing.assert_close(found["inputs_embeds"], values, **CLOSE)


@pytest.mark.parametrize("name", cpath.attribution.names())
def test_an_attribution_of_embeddings_is_that_of_each_text_or_needs_images(name):
    model = texts.encoder()
    given, one = embedded(model), zoo.quick_attribution(name)
    if name in ("gradcam", "neuron_intgrad_star", "sobel"):
        with pytest.raises(cpath.InputError, match=r"needs images \(B, C, H, W\), of which the inputs have none"):
            cpath.attribute(model, given, one, sites="gelu")
        return
    whole = cpath.attribute(model, given, one, sites="gelu")["inputs_embeds"]
    assert whole.shape == given["inputs_embeds"].shape
    assert whole.count_nonzero() > 0
    for row in range(3):
        alone = {key: value[row : row + 1] for key, value in given.items()}
        found = cpath.attribute(model, alone, one, sites="gelu")["inputs_embeds"]
        torch.testing.assert_close(found, whole[row : row + 1], **CLOSE)


@pytest.mark.parametrize("name", cpath.attribution.names())
def test_attributions_say_that_token_ids_have_no_gradient(name):
    with pytest.raises(cpath.InputError, match=r"must be floats to have a gradient.*inputs_embeds"):
        cpath.attribute(texts.encoder(), texts.texts(), zoo.quick_attribution(name), sites="gelu")


def test_pathway_gradient_of_embeddings_equals_plain_autograd_through_the_masks():
    model = texts.encoder()
    given = embedded(model)
    pathway = cpath.find_pathway(model, given, "neuron_mct", 60, sites="gelu")
    found = cpath.pathway_gradient(model, given, pathway)
    assert found["attention_mask"] is None
    leaf = given["inputs_embeds"].clone().requires_grad_()
    handle = model.act.register_forward_hook(lambda _, __, output: output * pathway.masks["act"])
    answer = model(inputs_embeds=leaf, attention_mask=given["attention_mask"]).logits
    handle.remove()
    (expected,) = torch.autograd.grad(answer[range(3), pathway.target].sum(), leaf)
    torch.testing.assert_close(found["inputs_embeds"], expected, **CLOSE)


def test_a_function_of_the_output_is_explained_instead_of_a_class(tmp_path):
    model = texts.encoder()

    def difference(output: texts.Output) -> Tensor:
        return output.logits[:, 2] - output.logits[:, 0]

    scores = cpath.score(model, texts.texts(), "neuron_mct", difference, sites="gelu")
    for text, values in zip(each_text(model), scores.values["act"], strict=True):
        z = hidden(text).detach().requires_grad_()
        found = logits(text, z)
        (gradient,) = torch.autograd.grad(found[2] - found[0], z)
        torch.testing.assert_close(values, (z * gradient).abs().detach(), **CLOSE)
    assert scores.target is scores[0].target is scores.to("cpu").target is None
    scores.save(tmp_path / "scores")
    assert cpath.Scores.load(tmp_path / "scores").target is None
    scores.pathway(50).save(tmp_path / "pathway")
    assert cpath.Pathway.load(tmp_path / "pathway").target is None


def test_a_model_of_token_ids_says_what_it_cannot_take():
    model = texts.encoder()
    with pytest.raises(cpath.InputError, match=r"unexpected keyword argument 'tokens'.*mapping of its keyword"):
        cpath.score(model, {"tokens": texts.texts()["input_ids"]}, sites="gelu")
    with pytest.raises(cpath.InputError, match=r"inputs\['input_ids'\] has 3, inputs\['attention_mask'\] has 2"):
        cpath.score(model, {**texts.texts(), "attention_mask": torch.ones(2, 5)}, sites="gelu")
    with pytest.raises(IndexError) as caught:
        cpath.score(model, texts.texts()["input_ids"] + 5, sites="gelu")
    assert "error of the model itself, given inputs of shape (3, 5) (torch.int64)" in caught.value.__notes__[0]


def test_the_encoding_of_a_tokeniser_is_a_mapping_like_any_other():
    transformers = pytest.importorskip("transformers")
    model, given = texts.encoder(), transformers.BatchEncoding(dict(texts.texts()))
    found = cpath.score(model, given, "neuron_intgrad", sites="gelu")
    assert torch.equal(found.flat, cpath.score(model, texts.texts(), "neuron_intgrad", sites="gelu").flat)
