"""A small text encoder, as transformers has them: token ids and an attention mask in, logits in an object out."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES, HEADS, WIDTH, VOCABULARY, LENGTH = 4, 2, 6, 11, 5


@dataclass
class Output:
    """What the encoder returns."""

    logits: Tensor
    hidden: Tensor


class Encoder(nn.Module):
    """Embedding, a block of attention and GELU, and a head on the mean of the tokens that are not padding."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.mixed = nn.Linear(WIDTH, 3 * WIDTH)
        self.back = nn.Linear(WIDTH, WIDTH)
        self.wide = nn.Linear(WIDTH, 8)
        self.act = nn.GELU()
        self.narrow = nn.Linear(8, WIDTH)
        self.pool = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_hidden: bool = True,
    ) -> Output:
        x = self.tokens(input_ids) if inputs_embeds is None else inputs_embeds.clone()
        x += self.places.weight[: x.shape[1]]
        batch, length, _ = x.shape
        attention_mask = torch.ones(batch, length) if attention_mask is None else attention_mask
        q, k, v = self.mixed(x).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = attention_mask.bool()[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).reshape(x.shape)
        x = x + self.back(mixed)
        x = x + self.narrow(self.act(self.wide(x)))
        weights = attention_mask.to(x.dtype)[:, :, None]
        pooled = torch.tanh(self.pool((x * weights).sum(1) / weights.sum(1)))
        return Output(self.head(pooled), x)


def encoder(dtype: torch.dtype = torch.float64, classes: int = CLASSES) -> Encoder:
    """The encoder, in eval mode, with weights that tell the texts apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Encoder(classes)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.6)
    return model.to(dtype).eval()


class Encoding(UserDict[str, Tensor]):
    """A mapping that is no dict, as the ``BatchEncoding`` of a tokeniser."""


def texts() -> Encoding:
    """Three texts, the second and third padded."""
    ids = torch.tensor([[3, 7, 1, 9, 2], [5, 5, 8, 0, 0], [2, 10, 4, 6, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    return Encoding(input_ids=ids, attention_mask=mask)


def by_hand(model: Encoder, ids: Tensor, mask: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits (classes,) of one text, and the GELU's output (length, 8), which ``hidden`` can replace.

    Written with loops over heads and tokens, and without any function that cpath sees.
    """
    w = {name: value.detach() for name, value in model.named_parameters()}

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = torch.stack([w["tokens.weight"][token] for token in ids.tolist()]) + w["places.weight"][: len(ids)]
    q, k, v = linear("mixed", x).split(WIDTH, 1)
    kept = [place for place, one in enumerate(mask.tolist()) if one]
    rows = []
    for token in range(len(ids)):
        heads = []
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            weights = torch.stack([(q[token, part] * k[other, part]).sum() for other in kept])
            weights = torch.exp(weights / (WIDTH / HEADS) ** 0.5)
            heads.append(sum(a * v[other, part] for a, other in zip(weights / weights.sum(), kept, strict=True)))
        rows.append(torch.cat(heads))
    x = x + linear("back", torch.stack(rows))
    before = linear("wide", x)
    found = before * 0.5 * (1 + torch.special.erf(before / 2**0.5)) if hidden is None else hidden
    x = x + linear("narrow", found)
    pooled = linear("pool", x[kept].mean(0))
    pooled = 1 - 2 / (torch.exp(2 * pooled) + 1)
    return linear("head", pooled), found
