"""Weights out of an ONNX file, without the package onnx: the few fields of its format that hold tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpath.errors import InputError

# Numbers of the fields in ONNX's protocol-buffer messages (onnx.proto).
_GRAPH_OF_MODEL, _INITIALIZER_OF_GRAPH = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8")}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # kinds of fields


def onnx_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of floats and whole numbers that an ONNX file holds beside its graph.

    Args:
        path: The file.

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        InputError: If the file cannot be read as ONNX.

    Example:
        >>> cpath.models.onnx_weights("network.onnx")  # doctest: +SKIP
    """
    try:
        data = memoryview(Path(path).read_bytes())
        return dict(
            _tensor(tensor)
            for field, graph in _fields(data)
            if field == _GRAPH_OF_MODEL and isinstance(graph, memoryview)
            for inner, tensor in _fields(graph)
            if inner == _INITIALIZER_OF_GRAPH and isinstance(tensor, memoryview)
        )
    except (OSError, IndexError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as an ONNX file: {error}.") from error


def _tensor(message: memoryview) -> tuple[str, Tensor]:
    shape: list[int] = []
    name, kind, raw = "", 0, memoryview(b"")
    for field, value in _fields(message):
        if field == _DIMS:
            shape += _whole_numbers(value)
        elif field == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif field == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif field == _RAW_DATA and isinstance(value, memoryview):
            raw = value
    if kind not in _TYPES or len(raw) != math.prod(shape) * _TYPES[kind].itemsize:
        raise ValueError(f"tensor '{name}' of type {kind} is none of raw floats or whole numbers")
    return name, torch.from_numpy(np.frombuffer(raw, _TYPES[kind]).reshape(shape).copy())


def _whole_numbers(value: int | memoryview) -> list[int]:
    """A repeated whole number: one, or several packed together."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of the fields of a message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind} at byte {at}")
        if at + size > len(message):
            raise ValueError("it ends too early")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, the lowest first, and the place behind it."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
