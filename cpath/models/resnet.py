"""Small residual networks for small images, as the paper trains on CIFAR-10."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpath.checks import check_count
from cpath.errors import InputError, unknown_name

SHORTCUTS = ("padded", "convolution")


class _Padded(nn.Module):
    """Shortcut without parameters: every stride-th position, with channels of zeros on both sides."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        kept = x[:, :, :: self.stride, :: self.stride]
        if not self.added:
            return kept
        return F.pad(kept, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


def _shortcut(kind: str, channels_in: int, channels: int, stride: int) -> nn.Module:
    if channels == channels_in and stride == 1:
        return nn.Identity()
    if kind == "padded":
        return _Padded(channels_in, channels, stride)
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


class _Block(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut = _shortcut(shortcut, channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        total: Tensor = self.relu(out + self.shortcut(x))
        return total


class ResNet(nn.Module):
    """Residual network for small images: a stem and three stages of blocks, with 1, 2 and 4 times the width.

    Args:
        blocks: Number of blocks in each stage.
        classes: Number of classes.
        channels: Number of channels of the images (B, channels, H, W), H and W at least 4.
        width: Number of channels of the first stage.
        shortcut: What joins blocks of different shapes: "padded", which has no parameters (every second position,
            with channels of zeros), or "convolution", a 1×1 convolution with batch normalisation. Weights start
            from He's initialisation with the first, as in the source, from PyTorch's with the second, as released.

    Raises:
        InputError: If a number is below 1.
        UnknownNameError: If there is no such shortcut.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.

    Example:
        >>> network = cpath.models.ResNet(blocks=3, classes=10)  # ResNet-20
        >>> network(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self, blocks: int, classes: int, channels: int = 3, width: int = 16, shortcut: str = "padded"
    ) -> None:
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise unknown_name("shortcut", shortcut, SHORTCUTS)
        blocks, classes = check_count("blocks", blocks), check_count("classes", classes)
        channels, width = check_count("channels", channels), check_count("width", width)
        self.conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.stage1 = self._stage(blocks, width, width, 1, shortcut)
        self.stage2 = self._stage(blocks, width, 2 * width, 2, shortcut)
        self.stage3 = self._stage(blocks, 2 * width, 4 * width, 2, shortcut)
        self.fc = nn.Linear(4 * width, classes)
        if shortcut == "convolution":
            return  # the released network starts from PyTorch's own initialisation
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(blocks: int, channels_in: int, channels: int, stride: int, shortcut: str) -> nn.Sequential:
        first = _Block(channels_in, channels, stride, shortcut)
        return nn.Sequential(first, *(_Block(channels, channels, 1, shortcut) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits (B, classes)."""
        x = self.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))  # type: ignore[no-any-return]


def resnet8(classes: int, shape: tuple[int, int, int] = (3, 32, 32), width: int = 64) -> ResNet:
    """Make the paper's network for CIFAR-10: one block in each stage, convolutions in the shortcuts.

    With its defaults it is the network of the released code: 64, 128 and 256 channels, 1 227 594 parameters for 10
    classes, 7 sites and 294 912 neurons on images of 32×32.

    Args:
        classes: Number of classes.
        shape: (C, H, W) of the images.
        width: Number of channels of the first stage.

    Returns:
        The network, with random weights.

    Raises:
        InputError: If the images are smaller than 4×4.

    Source: Khakzar et al. 2021, section 4 and the code released with it.

    Example:
        >>> cpath.models.resnet8(10)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    return _resnet8(classes, shape, width, "convolution")


def resnet8_narrow(classes: int, shape: tuple[int, int, int] = (3, 32, 32), width: int = 16) -> ResNet:
    """Make a ResNet-8 for small runs: narrower than the paper's, and without parameters in its shortcuts.

    It is another network than `resnet8`: no number that the paper publishes is about it.

    Args:
        classes: Number of classes.
        shape: (C, H, W) of the images.
        width: Number of channels of the first stage.

    Returns:
        The network, with random weights.

    Raises:
        InputError: If the images are smaller than 4×4.

    Example:
        >>> cpath.models.resnet8_narrow(10)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    return _resnet8(classes, shape, width, "padded")


def _resnet8(classes: int, shape: tuple[int, int, int], width: int, shortcut: str) -> ResNet:
    if min(shape[1:]) < 4:
        raise InputError(f"ResNet-8 needs images of at least 4×4, not {shape[1]}×{shape[2]}.")
    return ResNet(1, classes, shape[0], width, shortcut)
