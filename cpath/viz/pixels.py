"""Pixels to show of a model's inputs, and the words beside them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from cpath.data import Normalisation
from cpath.errors import InputError, described

Scale = Normalisation | tuple[Sequence[float], Sequence[float]] | None
"""Normalisation of the inputs, or its (mean, std); None for inputs that are no normalised images."""

Labels = Tensor | Sequence[int] | Sequence[str] | None
"""A class for each input: its number or its name."""


def pixels_of(inputs: Tensor, normalisation: Scale = None) -> np.ndarray:
    """Get the pixels to show of images.

    Args:
        inputs: images (B, C, H, W): whole numbers from 0 to 255, floats in [0, 1], or normalised floats.
        normalisation: what undoes the normalisation. Floats outside [0, 1] without it are stretched to their range,
            each image by itself: their colours are not the original ones.

    Returns:
        (B, H, W, C) in [0, 1], with 3 channels or 1; other numbers of channels are averaged.

    Raises:
        InputError: if they are no images, hold NaN, or the normalisation does not fit them.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or 0 in inputs.shape:
        hint = (
            "one image is image[None]" if isinstance(inputs, Tensor) else "torch.from_numpy makes one of an array"
        )
        raise InputError(f"inputs to show are a tensor of images (B, C, H, W), not {described(inputs)}: {hint}.")
    scale = _scale_of(normalisation)
    pixels = inputs.detach().cpu()
    if not pixels.is_floating_point():
        if scale is not None:
            raise InputError("inputs of whole numbers are raw pixels: leave normalisation= out.")
        pixels = pixels.float() / 255
    elif pixels.isnan().any():
        raise InputError("inputs hold NaN: there is no picture of them.")
    elif scale is not None:
        if len(scale.mean) not in (1, pixels.shape[1]):
            raise InputError(f"normalisation= is for {len(scale.mean)} channels, inputs have {pixels.shape[1]}.")
        pixels = scale.invert(pixels.float())
    else:
        pixels = _in_range(pixels.float())
    if pixels.shape[1] not in (1, 3):
        pixels = pixels.mean(1, keepdim=True)
    return np.asarray(pixels.clamp(0, 1).permute(0, 2, 3, 1).numpy())


def _scale_of(normalisation: object) -> Normalisation | None:
    if normalisation is None or isinstance(normalisation, Normalisation):
        return normalisation
    if isinstance(normalisation, tuple | list) and len(normalisation) == 2:
        mean, std = (one.tolist() if isinstance(one, Tensor | np.ndarray) else one for one in normalisation)
        if isinstance(mean, tuple | list) and isinstance(std, tuple | list):
            return Normalisation(tuple(mean), tuple(std))
    raise InputError(
        "normalisation= is a cpath.data.Normalisation, or a pair (mean, std) with a number for each channel, not "
        f"{described(normalisation)}."
    )


def _in_range(pixels: Tensor) -> Tensor:
    low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
    if low.min() >= 0 and high.max() <= 1:
        return pixels
    return (pixels - low) / (high - low).clamp(min=1e-12)


def captions(count: int, predicted: Labels, true: Labels, classes: Sequence[str] | None) -> list[str]:
    """Write what the network said of each input and what it is.

    Args:
        count: number of inputs.
        predicted: predicted class of each.
        true: true class of each.
        classes: names of the classes, by number.

    Returns:
        ``predicted …`` and ``true …`` in lines of their own, for each input; empty texts where nothing is known.

    Raises:
        InputError: if there is not one class for each input, or a number has no name.
    """
    lines = [
        [f"{word} {name}" for name in _names(word, labels, count, classes)]
        for word, labels in (("predicted", predicted), ("true", true))
        if labels is not None
    ]
    return ["\n".join(parts) for parts in zip(*lines, strict=True)] if lines else [""] * count


def _names(word: str, labels: Tensor | Sequence[int] | Sequence[str], count: int, classes: object) -> list[str]:
    found = labels.tolist() if isinstance(labels, Tensor) else labels
    if isinstance(found, str) or not isinstance(found, Iterable) or len(found := list(found)) != count:
        raise InputError(f"{word}= must be a class for each of the {count} inputs, not {described(labels)}.")
    if classes is None:
        return [str(label) for label in found]
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputError(f"classes= are names in the order of the classes' numbers, not {described(classes)}.")
    wrong = [label for label in found if not isinstance(label, str) and not 0 <= int(label) < len(classes)]
    if wrong:
        raise InputError(f"{word}= has class {wrong[0]}, but classes= names {len(classes)} classes.")
    return [label if isinstance(label, str) else str(classes[int(label)]) for label in found]


def wrapped(text: str, width: int) -> str:
    """Break the lines of a text.

    Args:
        text: one or more lines.
        width: of a line, in letters.

    Returns:
        The text with more lines.
    """
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, width))


def site_labels(names: Sequence[str], letters: int) -> list[str]:
    """Write names of sites in few letters: without what all begin with, and without the middle of long ones.

    Args:
        names: of the sites.
        letters: largest number of a label.

    Returns:
        A label for each site, with … where something is left out.
    """
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = re.sub(r"[^._]*$", "", "".join(letter for letter, *_ in alike))  # whole words
    if len(names) == 1 or len(shared) < 4:
        shared = ""
    return [_shortened(("…" if shared else "") + name.removeprefix(shared), letters) for name in names]


def _shortened(name: str, letters: int) -> str:
    if len(name) <= letters:
        return name
    start = 3 * letters // 5  # where the number of the layer stands
    return f"{name[:start]}…{name[len(name) - (letters - start - 1) :]}"


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """Bring maps to the size of the images that they are laid over.

    Args:
        maps: (B, H, W).
        height: of the images.
        width: of the images.

    Returns:
        (B, height, width).
    """
    if tuple(maps.shape[1:]) == (height, width):
        return maps
    larger = torch.nn.functional.interpolate(maps[:, None].float(), (height, width), mode="bilinear")
    return larger.squeeze(1)
