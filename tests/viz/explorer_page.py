"""Reads what a page of the explorer holds, by the form that its script expects."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import numpy as np
import torch
from torch import nn

STOPS = (0, 70, 90, 97)


class Page:
    """Facts and arrays of a page."""

    def __init__(self, html: str) -> None:
        (facts,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL)
        self.facts: dict[str, Any] = json.loads(facts)
        found = re.findall(r'<script type="text/plain" id="pack-([\w-]+)">(.*?)</script>', html, re.DOTALL)
        self.packs = {name: zlib.decompress(base64.b64decode(text)) for name, text in found}

    def arrays(self, number: int, unit: int, key: int | str) -> dict[str, np.ndarray]:
        """Arrays of an input and a kind of units, of the method of a number or "shared" by all."""
        content = self.packs[f"{number}-{unit}-{key}"]
        found, start = {}, 0
        for name, kind, count in self.facts["fields"][f"{unit}-{'shared' if key == 'shared' else 'run'}"]:
            size = np.dtype(kind).itemsize
            planes = np.frombuffer(content, np.uint8, count * size, start).reshape(size, count)
            found[name] = np.frombuffer(planes.T.tobytes(), np.dtype(kind).newbyteorder("<"))
            start += count * size
        assert start == len(content)
        return found


def network() -> nn.Module:
    """Three sites: two of feature maps, one of single numbers; five classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 10),
        nn.ReLU(),
        nn.Linear(10, 7),
    ).eval()


def images(count: int = 3) -> torch.Tensor:
    """Images (B, 3, 8, 8)."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
