"""Controls: maps that know nothing of the network. An attribution must differ from them, and do better."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cpath.attribution.base import Attribution, register
from cpath.attribution.response import Maps, ResponseProbe, one_or_all
from cpath.checks import check_seed
from cpath.randomness import image_generators


@register("random")
@dataclass(frozen=True, kw_only=True)
class RandomMap(Attribution):
    """Random map: U(0, 1) for every pixel, drawn from the seed and the input itself.

    Of inputs that are no single tensor of images, it is U(0, 1) for every element.

    Args:
        seed: Seed of the draws.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.RandomMap(seed=1)).shape
        torch.Size([2, 1, 8, 8])
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def maps(self, probe: ResponseProbe) -> Maps:
        """Draw maps from U(0, 1): (B, 1, H, W) for images, and otherwise of the shape of the inputs."""
        _ = probe.target  # not needed, but an unusable target or model must be reported as everywhere
        sources = probe.sources
        alone = len(sources) == 1 and sources[0].dim() == 4
        sizes = [(1, *source.shape[2:]) if alone else source.shape[1:] for source in sources]
        draws = [
            [torch.rand(size, generator=one, device="cpu") for size in sizes]
            for one in image_generators(probe.inputs, self.seed, self.name)
        ]
        found = [torch.stack(rows) for rows in zip(*draws, strict=True)]
        return one_or_all(drawn.to(source) for drawn, source in zip(found, sources, strict=True))


@register("sobel")
@dataclass(frozen=True, kw_only=True)
class Sobel(Attribution):
    """Edges of the image: magnitude of the Sobel gradient of its mean over the channels.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.Sobel()).shape
        torch.Size([2, 1, 8, 8])
    """

    def maps(self, probe: ResponseProbe) -> Tensor:
        """Compute √(g_x² + g_y²), (B, 1, H, W), with the border repeated outwards."""
        _ = probe.target  # as above
        grey = F.pad(probe.images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across = grey.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        edges = F.conv2d(grey, torch.stack([across, across.T]).unsqueeze(1))
        return edges.square().sum(1, keepdim=True).sqrt()
