"""Numbers and pictures as text that a page can hold."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

Field = tuple[str, str, int]
"""Name of an array, type and number of its elements."""


def smallest_type(largest: int) -> str:
    """Find the smallest type of whole numbers that a page's arrays have.

    Args:
        largest: Largest number to hold; the smallest is 0.

    Returns:
        ``"uint8"``, ``"uint16"`` or ``"uint32"``.

    Example:
        >>> from cpath.viz.explorer.packing import smallest_type
        >>> smallest_type(255), smallest_type(256), smallest_type(1 << 16)
        ('uint8', 'uint16', 'uint32')
    """
    return next(
        kind for kind, top in (("uint8", 1 << 8), ("uint16", 1 << 16), ("uint32", 1 << 32)) if largest < top
    )


def packed(arrays: Iterable[tuple[str, str, np.ndarray]]) -> tuple[str, list[Field]]:
    """Pack arrays one behind another, compressed.

    Args:
        arrays: Name, type and values of each.

    Returns:
        Base64 of zlib's bytes, and what is in them, in order.
    """
    fields: list[Field] = []
    parts: list[bytes] = []
    for name, kind, values in arrays:
        fields.append((name, kind, values.size))
        numbers = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
        # First bytes of all numbers, then the second ones: those are mostly zero.
        parts.append(numbers.view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes())
    return base64.b64encode(zlib.compress(b"".join(parts), 6)).decode(), fields


def png(pixels: np.ndarray) -> str:
    """Write an image as a PNG.

    Args:
        pixels: Pixels (H, W, C) in [0, 1], with 3 channels or 1.

    Returns:
        A ``data:`` address.
    """
    values = np.rint(255 * pixels).astype(np.uint8)
    height, width, channels = values.shape
    rows = values.reshape(height, width * channels)
    # Differences to the row above, PNG's filter 2, compress better than the values.
    lines = np.column_stack([np.full(height, 2, np.uint8), np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))])
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    written = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)
    return f"data:image/png;base64,{base64.b64encode(written).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def json_for_page(content: Any) -> str:
    r"""Write JSON that can stand in a page's ``script`` element, whatever texts it holds.

    Args:
        content: What to write; NaN becomes null.

    Returns:
        The text.

    Example:
        >>> from cpath.viz.explorer.packing import json_for_page
        >>> json_for_page({"name": "</script>", "value": float("nan")})
        '{"name": "\\u003c/script>", "value": null}'
    """
    return json.dumps(_without_nan(content), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _without_nan(content: Any) -> Any:
    if isinstance(content, float) and not np.isfinite(content):
        return None
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return content
