"""Attention as a site, per head, against attention that is written out as products and a softmax."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from tests import zoo

TIGHT = {"rtol": 1e-9, "atol": 1e-12}
WIDTH, HEADS, TOKENS = 8, 2, 5


def heads_of(values: Tensor) -> Tensor:
    return values.unflatten(-1, (HEADS, -1)).transpose(1, 2)  # (B, heads, tokens, d)


class Functional(nn.Module):
    """As timm and Hugging Face compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = map(heads_of, self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Torchs(nn.Module):
    """``nn.MultiheadAttention``, asked for its weights or not."""

    def __init__(self, **asked: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.asked = asked

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.attention(x, x, x, attn_mask=mask, **self.asked)[0]


class WrittenOut(nn.Module):
    """What both compute, with a function that changes nothing at the output of the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = map(heads_of, self.qkv(x).chunk(3, -1))
        weights = query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        mixed = weights.masked_fill(later, -torch.inf).softmax(-1) @ value
        return self.out(F.hardtanh(mixed, -1e9, 1e9).transpose(1, 2).flatten(2))


class Net(nn.Module):
    def __init__(self, kind: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Linear(3, WIDTH)
        self.blocks = nn.ModuleList(kind() for _ in range(2))
        self.fc = nn.Linear(WIDTH, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.fc(x.mean(1))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "functional": Functional,
    "torch's with weights": lambda: Torchs(need_weights=True),
    "torch's with weights of each head": lambda: Torchs(need_weights=True, average_attn_weights=False),
    "torch's without weights": lambda: Torchs(need_weights=False),
}


def twins(kind: str) -> tuple[nn.Module, nn.Module, list[str]]:
    """A network, the same one written out, and the names of the sites of the first."""
    oracle = zoo.make(lambda: Net(WrittenOut), torch.float64)
    model = zoo.make(lambda: Net(KINDS[kind]), torch.float64)
    renamed = {"attention.in_proj_": "qkv.", "attention.out_proj.": "out."}
    weights = dict(oracle.state_dict())
    for name in model.state_dict():
        plain = name
        for theirs, ours in renamed.items():
            plain = plain.replace(theirs, ours)
        weights[name] = weights.pop(plain)
    model.load_state_dict(weights)
    inner = "" if kind == "functional" else ".attention"
    return model, oracle, [f"blocks.{number}{inner}:attention" for number in range(2)]


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(3, TOKENS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_spelling_of_attention_has_the_scores_of_that_which_is_written_out(kind, tokens, method):
    model, oracle, names = twins(kind)
    with zoo.untouched(model):
        scores = cpath.score(model, tokens, method, 1, sites="attention")
    assert {name: tuple(values.shape) for name, values in scores.values.items()} == dict.fromkeys(
        names, (3, HEADS, TOKENS, WIDTH // HEADS)
    )
    expected = cpath.score(oracle, tokens, method, 1, sites="hardtanh")
    torch.testing.assert_close(scores.flat, expected.flat, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", list(KINDS))
def test_heads_are_taken_out_as_by_hand(kind, tokens):
    model, oracle, names = twins(kind)
    plain = model(tokens)
    torch.testing.assert_close(plain, oracle(tokens), **TIGHT)
    with cpath.observe(model, sites="attention") as seen:
        torch.testing.assert_close(model(tokens), plain, **TIGHT)
    with cpath.observe(oracle, sites="hardtanh") as expected:
        oracle(tokens)
    for found, values in zip(seen.activations.values(), expected.activations.values(), strict=True):
        torch.testing.assert_close(found, values, **TIGHT)
    # Without the second head of the first block: the columns of the projection that read it are zero.
    masks = {name: torch.ones(3, HEADS, TOKENS, WIDTH // HEADS, dtype=torch.bool) for name in names}
    masks[names[0]][:, 1] = False
    with cpath.Pathway.from_masks(masks, sites="attention").restrict(model):
        found = model(tokens)
    with torch.no_grad():
        oracle.blocks[0].out.weight[:, WIDTH // HEADS :] = 0
    torch.testing.assert_close(found, oracle(tokens), **TIGHT)
    torch.testing.assert_close(model(tokens), plain, **TIGHT)


@pytest.mark.parametrize("kind", list(KINDS))
def test_gradients_at_heads_and_inputs_are_those_of_the_formula(kind, tokens):
    model, oracle, names = twins(kind)
    found = cpath.Probe(model, tokens, 2, sites="attention").record()
    expected = cpath.Probe(oracle, tokens, 2, sites="hardtanh").record()
    for name, gradient in zip(names, expected.gradients.values(), strict=True):
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found.gradients[name], gradient, **TIGHT)
    pathway = cpath.find_pathway(model, tokens, sparsity=50, target=2, sites="attention")
    twin = cpath.Pathway.from_masks(
        dict(zip(expected.gradients, pathway.masks.values(), strict=True)), sites="hardtanh"
    )
    gradients = []
    for each, restriction in ((model, pathway), (oracle, twin)):
        source = tokens.clone().requires_grad_()
        with restriction.restrict(each):
            gradients += torch.autograd.grad(each(source)[:, 2].sum(), source)
    torch.testing.assert_close(*gradients, **TIGHT)


@pytest.mark.parametrize("batch_first", [True, False])
def test_transformer_layers_have_attention_and_no_fast_path(batch_first):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=batch_first, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(3, 5, WIDTH)
    with torch.no_grad():  # the fast path would be taken
        plain = model(x)
        with cpath.observe(model, sites=("attention", "relu")) as seen:
            torch.testing.assert_close(model(x), plain)
    assert list(seen.activations) == [
        *("layers.0.self_attn:attention", "layers.0:relu", "layers.1.self_attn:attention", "layers.1:relu"),
    ]
    batch = 3 if batch_first else 5
    assert {len(output) for name, output in seen.activations.items() if "attention" in name} == {batch}


class Switching(nn.Module):
    """A model whose attention is another one from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), Functional()
        self.stem, self.fc = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.first(x, x, x)[0]
        x = self.second(x) + self.first(x, x, x, need_weights=False)[0]
        products = torch.bmm(x, x.transpose(1, 2))  # no attention
        return self.fc(x.mean(1)) + products.mean((1, 2))[:, None]


def test_attention_of_several_kinds_is_numbered_with_its_module(tokens):
    model = zoo.make(Switching, torch.float64)
    sites = ["first:attention", "second:attention", "first:attention#2"]
    for entry in ("attention", "*:attention", ("first:*", "second:attention")):
        with cpath.observe(model, sites=entry) as seen:
            model(tokens)
        assert list(seen.activations) == sites
    assert list(cpath.score(model, tokens, "active", sites=("attention", "!*#2")).values) == sites[:2]
    # The module itself is another site: what its projection makes of the heads.
    with cpath.observe(model, sites=("attention", "first")) as seen:
        model(tokens)
    assert list(seen.activations) == [
        "first:attention",
        "first",
        "second:attention",
        *(f"first{x}#2" for x in (":attention", "")),
    ]
    heads = seen.activations["first:attention"].transpose(1, 2).flatten(2)
    torch.testing.assert_close(seen.activations["first"], model.first.out_proj(heads).detach(), **TIGHT)


class WithoutFunction(nn.Module):
    """Attention that is written out, as eager models compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.fc = WrittenOut(), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attn(F.pad(x, (0, WIDTH - 3))).mean(1))


def test_attention_that_cannot_be_seen_is_told_with_what_to_do(tokens):
    model = zoo.make(WithoutFunction, torch.float64)
    message = r"calls no attention that can be seen.*attn_implementation='sdpa'.*name the modules"
    for sites in ("attention", ("attention", "hardtanh")):
        with pytest.raises(cpath.SiteError, match=message):
            cpath.score(model, tokens, sites=sites)
    assert list(cpath.score(model, tokens, "active", sites="attn").values) == ["attn"]


def test_exported_attention_is_refused_with_the_cause(tokens):
    model = zoo.make(lambda: Net(Functional), torch.float64)
    exported = torch.export.export(model, (tokens,)).module()
    with pytest.raises(cpath.SiteError, match=r"comes from torch\.export: its attention is an operator"):
        cpath.score(exported, tokens, sites="attention")


# Other libraries, with random weights


def _bert(attention: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        vocab_size=30,
        num_labels=4,
    )
    config._attn_implementation = attention
    return transformers.BertForSequenceClassification(config)


class Embedded(nn.Module):
    """A text model of Hugging Face as a function of its embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.model(inputs_embeds=embeddings).logits


def _hooked(model: nn.Module, name: str, change: Callable[[Tensor], Tensor]) -> Any:
    def hook(module: nn.Module, args: object, output: Any) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    return model.get_submodule(name).register_forward_hook(hook)


def check_replacements(model: nn.Module, texts: Tensor, sites: str, site: str, module: str) -> None:
    """Compare responses with scaled outputs of a site, in lanes, with those of a hook that scales them."""
    probe = cpath.Probe(model, texts, 1, sites=sites).remembering()
    output = probe.record(gradients=False).activations[site]
    scales = (0.0, 0.3, 1.0)
    responses = probe.responses(site, torch.stack([scale * output for scale in scales]))
    for scale, response in zip(scales, responses, strict=True):
        handle = _hooked(model, module, lambda output, scale=scale: output * scale)
        torch.testing.assert_close(response, model(texts)[:, 1], **TIGHT)
        handle.remove()


def test_berts_heads_are_seen_and_taken_out_as_by_a_hook():
    torch.manual_seed(0)
    model = Embedded(_bert("sdpa")).eval().double()
    texts = torch.randn(2, 6, 12, dtype=torch.float64)
    names = [f"model.bert.encoder.layer.{number}.attention.self:attention" for number in range(2)]
    for name in names:
        check_replacements(model, texts, "attention", name, name.removesuffix(":attention"))
    shapes = cpath.score(model, texts, target=1, sites="attention").layout.shapes
    assert dict(shapes) == dict.fromkeys(names, (3, 6, 4))
    masks = {name: torch.ones(2, 3, 6, 4, dtype=torch.bool) for name in names}
    masks[names[1]][:, 2] = False
    with torch.no_grad(), cpath.Pathway.from_masks(masks, sites="attention").restrict(model):
        found = model(texts)
    kept = torch.ones(12, dtype=torch.float64)
    kept[8:] = 0  # of the third head
    handle = _hooked(model, names[1].removesuffix(":attention"), lambda output: output * kept)
    with torch.no_grad():
        torch.testing.assert_close(found, model(texts), **TIGHT)
    handle.remove()
    with pytest.raises(cpath.SiteError, match="attn_implementation='sdpa'"):
        cpath.score(Embedded(_bert("eager")).eval().double(), texts, sites="attention")


@pytest.mark.parametrize(
    ("sites", "name"),
    [
        ("GELUActivation", "encoder.layer.0.intermediate.intermediate_act_fn"),
        ("transformers.activations.GELUActivation", "encoder.layer.1.intermediate.intermediate_act_fn"),
        ("*intermediate_act_fn", "encoder.layer.1.intermediate.intermediate_act_fn"),
        ("gelu", "encoder.layer.0.intermediate.intermediate_act_fn"),
        ("model.bert.encoder.layer.?", "encoder.layer.0"),
        ("BertAttention", "encoder.layer.1.attention"),
    ],
)
def test_modules_of_bert_are_masked_as_by_a_hook(sites, name):
    torch.manual_seed(0)
    model = Embedded(_bert("sdpa")).eval().double()
    texts = torch.randn(2, 6, 12, dtype=torch.float64)
    pathway = cpath.find_pathway(model, texts, sparsity=60, target=1, sites=sites)
    site = f"model.bert.{name}" + (":gelu" if sites == "gelu" else "")
    assert len(pathway.masks) == 2
    others = {key: torch.ones_like(mask) for key, mask in pathway.masks.items() if key != site}
    alone = cpath.Pathway.from_masks({site: pathway.masks[site], **others}, sites=sites)
    with torch.no_grad(), alone.restrict(model):
        found = model(texts)
    handle = _hooked(model, f"model.bert.{name}", lambda output: output * pathway.masks[site])
    with torch.no_grad():
        torch.testing.assert_close(found, model(texts), **TIGHT)
    handle.remove()


@pytest.mark.parametrize(("activation", "sites"), [("gelu_new", "NewGELUActivation"), ("quick_gelu", "*mlp.act")])
def test_activations_that_are_written_out_are_sites_as_modules(activation, sites):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=12, n_layer=2, n_head=3, vocab_size=30, num_labels=4, pad_token_id=0, activation_function=activation,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = Embedded(transformers.GPT2ForSequenceClassification(config)).eval().double()
    texts = torch.randn(2, 6, 12, dtype=torch.float64)
    names = [f"model.transformer.h.{number}.mlp.act" for number in range(2)]
    for name in names:
        check_replacements(model, texts, sites, name, name)
    assert list(cpath.score(model, texts, target=1, sites=sites).values) == names


def test_timms_attention_is_seen_where_it_is_fused():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=12, depth=2, num_heads=3, num_classes=5
    )
    model = model.eval().double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    scores = cpath.score(model, images, target=1, sites="attention")
    names = [f"blocks.{number}.attn:attention" for number in range(2)]
    assert {name: values.shape for name, values in scores.values.items()} == dict.fromkeys(names, (2, 3, 5, 4))
    # Σ z · ∂f/∂z over the heads of a block is that over what its projection, a linear map, adds to the bias.
    record = cpath.Probe(model, images, 1, sites="blocks.*.attn.proj").record()
    attention = cpath.Probe(model, images, 1, sites="attention").record()
    for number, name in enumerate(names):
        proj = f"blocks.{number}.attn.proj"
        without_bias = record.activations[proj] - model.get_submodule(proj).bias.detach()
        expected = (without_bias * record.gradients[proj]).sum((1, 2))
        found = (attention.activations[name] * attention.gradients[name]).sum((1, 2, 3))
        torch.testing.assert_close(found, expected, **TIGHT)
    for block in model.blocks:
        block.attn.fused_attn = False
    unfused = copy.deepcopy(model)  # which was not looked at yet
    with pytest.raises(cpath.SiteError, match="fused attention in timm"):
        cpath.score(unfused, images, target=1, sites="attention")
