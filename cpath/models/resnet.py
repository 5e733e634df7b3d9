"""Small residual networks for small images, as the paper trains on CIFAR-10."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpath.checks import check_count
from cpath.errors import InputError


class _Block(nn.Module):
    """Two 3×3 convolutions around a parameter-free shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.stride, self.added = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.added:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        total: Tensor = self.relu(out + shortcut)
        return total


class ResNet(nn.Module):
    """Residual network for small images: a stem and three stages of blocks, with 1, 2 and 4 times the width.

    Args:
        blocks: Number of blocks in each stage.
        classes: Number of classes.
        channels: Number of channels of the images (B, channels, H, W), H and W at least 4.
        width: Number of channels of the first stage.

    Raises:
        InputError: If one of them is below 1.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.

    Example:
        >>> network = cpath.models.ResNet(blocks=3, classes=10)  # ResNet-20
        >>> network(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(self, blocks: int, classes: int, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        blocks, classes = check_count("blocks", blocks), check_count("classes", classes)
        channels, width = check_count("channels", channels), check_count("width", width)
        self.conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.stage1 = self._stage(blocks, width, width, 1)
        self.stage2 = self._stage(blocks, width, 2 * width, 2)
        self.stage3 = self._stage(blocks, 2 * width, 4 * width, 2)
        self.fc = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(blocks: int, channels_in: int, channels: int, stride: int) -> nn.Sequential:
        first = _Block(channels_in, channels, stride)
        return nn.Sequential(first, *(_Block(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits (B, classes)."""
        x = self.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))  # type: ignore[no-any-return]


def resnet8(classes: int, shape: tuple[int, int, int] = (3, 32, 32), width: int = 16) -> ResNet:
    """Make a ResNet-8, the paper's model for CIFAR-10: one block in each stage.

    Args:
        classes: Number of classes.
        shape: (C, H, W) of the images.
        width: Number of channels of the first stage.

    Returns:
        The network, with random weights.

    Raises:
        InputError: If the images are smaller than 4×4.

    Example:
        >>> cpath.models.resnet8(10)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    if min(shape[1:]) < 4:
        raise InputError(f"ResNet-8 needs images of at least 4×4, not {shape[1]}×{shape[2]}.")
    return ResNet(1, classes, shape[0], width)
