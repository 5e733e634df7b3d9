"""Datasets whose inputs are no images: token ids, tables, several tensors at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cpath.checks import check_count, check_seed
from cpath.display import Shown
from cpath.errors import InputError
from cpath.inputs import Given, Inputs
from cpath.randomness import seeded


class InputSplit(Shown):
    """Inputs with labels, held in memory.

    Args:
        inputs: A tensor (N, …), a tuple of positional arguments, or a mapping of keyword arguments, see
            `cpath.inputs`.
        labels: Labels (N,), int64.
        ids: A name for each input; their numbers if there are none.

    Raises:
        InputError: If inputs, labels and ids differ in number.

    Example:
        >>> tokens = {"ids": torch.tensor([[1, 2], [3, 4], [5, 6]])}
        >>> split = cpath.data.InputSplit(tokens, torch.tensor([0, 1, 0]))
        >>> split.batch(torch.tensor([2])).tensors[0], split.ids
        (tensor([[5, 6]]), ['0', '1', '2'])
    """

    def __init__(self, inputs: Given, labels: Tensor, ids: Sequence[str] = ()) -> None:
        self.inputs = Inputs.of(inputs)
        self.labels = torch.as_tensor(labels, dtype=torch.int64)
        self.ids = list(ids) or [str(number) for number in range(len(self.inputs))]
        if not len(self.inputs) == len(self.labels) == len(self.ids) or self.labels.dim() != 1:
            raise InputError(
                f"inputs, labels and ids must be as many: {len(self.inputs)} inputs, labels of shape "
                f"{tuple(self.labels.shape)}, {len(self.ids)} ids."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def _facts(self) -> dict[str, object]:
        return {"inputs": len(self), "classes": len(set(self.labels.tolist()))}

    def batch(self, indices: Tensor) -> Inputs:
        """Select inputs.

        Args:
            indices: Numbers of the inputs (B,).

        Returns:
            The inputs.
        """
        return self.inputs[indices]

    def sample(self, count: int | None, seed: int) -> Tensor:
        """Draw inputs without replacement, as `Split.sample` draws images.

        Args:
            count: Number of inputs; None for all, in order.
            seed: Seed of the draw.

        Returns:
            Numbers of the inputs (count,).

        Raises:
            InputError: If ``count`` is below 1 or above the number of inputs, or ``seed`` is negative.
        """
        return drawn(len(self), count, seed, "inputs")


@dataclass(frozen=True, repr=False)
class InputData(Shown):
    """Dataset whose inputs are no images, to evaluate a trained model on.

    Args:
        name: Name of the dataset.
        classes: Names of the classes, in the order of the logits.
        test: Inputs to evaluate on.
        settings: Everything that determines the inputs, for the keys of stored artifacts; if empty, the
            configuration is taken.

    Example:
        >>> split = cpath.data.InputSplit(torch.rand(4, 7), torch.arange(4) % 2)
        >>> len(cpath.data.InputData("table", ("no", "yes"), split).test)
        4
    """

    name: str
    classes: tuple[str, ...]
    test: InputSplit
    settings: dict[str, object] = field(default_factory=dict)


def drawn(size: int, count: int | None, seed: int, things: str = "images") -> Tensor:
    """Draw numbers without replacement.

    Args:
        size: Number of things to draw from.
        count: Number of things; None for all, in order.
        seed: Seed of the draw.
        things: Their name, for messages.

    Returns:
        Numbers (count,).

    Raises:
        InputError: If ``count`` is below 1 or above ``size``, or ``seed`` is negative.
    """
    if count is None:
        return torch.arange(size, device="cpu")
    seed = check_seed(seed)
    if check_count(f"the number of {things}", count) > size:
        raise InputError(f"{count} {things} asked for, the split has {size}.")
    return torch.randperm(size, generator=seeded(seed), device="cpu")[:count]


def topics(length: int = 24) -> InputData:
    """Load 120 sentences on ten topics as MiniLM's tokens, for `cpath.models.minilm_topics`.

    Args:
        length: Number of tokens to pad each sentence to.

    Returns:
        The dataset.

    Raises:
        MissingPackageError: If transformers or the package of the tokens is not installed.

    Example:
        >>> cpath.data.topics().classes[:2]  # doctest: +SKIP
        ('sport', 'music')
    """
    from cpath.models.topics import topic_sentences, topic_tokens

    sentences = topic_sentences()
    classes = tuple(dict.fromkeys(topic for topic, _ in sentences))
    tokens = topic_tokens([text for _, text in sentences], length)
    labels = torch.tensor([classes.index(topic) for topic, _ in sentences])
    ids = [f"{topic}-{number % 12 + 1:02d}" for number, (topic, _) in enumerate(sentences)]
    return InputData("topics", classes, InputSplit(tokens, labels, ids), {"name": "topics", "length": length})
