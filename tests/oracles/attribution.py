"""Slow, obvious attributions: image by image, float64, ReLU calls seen by replacing the functions themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Edit = Callable[[int, Tensor], Tensor]


@contextmanager
def relu_calls(edit: Edit) -> Iterator[None]:
    """Every ReLU, however it is spelled, returns ``edit(number of the call, ReLU(x))``."""
    saved = F.relu, torch.relu, Tensor.relu, Tensor.relu_
    calls = iter(range(10**6))

    def relu(x: Tensor, inplace: bool = False) -> Tensor:
        output = edit(next(calls), x * (x > 0))
        return x.copy_(output) if inplace else output

    F.relu, torch.relu, Tensor.relu, Tensor.relu_ = relu, relu, relu, lambda x: relu(x, True)
    try:
        yield
    finally:
        F.relu, torch.relu, Tensor.relu, Tensor.relu_ = saved


def keep(_: int, output: Tensor) -> Tensor:
    return output


def gradient(model: nn.Module, image: Tensor, target: int, edit: Edit = keep) -> Tensor:
    source = image.clone().requires_grad_()
    with relu_calls(edit):
        response = model(source.clone().unsqueeze(0))[0, target]
    return torch.autograd.grad(response, source)[0]


class _Guide(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return torch.where(gradient > 0, gradient, 0.0)


def guided(model: nn.Module, image: Tensor, target: int) -> Tensor:
    return gradient(model, image, target, lambda _, output: _Guide.apply(output))


def legendre(nodes: int) -> tuple[Sequence[float], Sequence[float]]:
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return (places + 1) / 2, weights / 2


def integrated(
    model: nn.Module, image: Tensor, target: int, rule: tuple[Sequence[float], Sequence[float]] = legendre(50)
) -> Tensor:
    total = torch.zeros_like(image)
    for node, weight in zip(*rule, strict=True):
        total += float(weight) * gradient(model, float(node) * image, target)
    return image * total


def smooth(model: nn.Module, image: Tensor, target: int, noises: Sequence[Tensor]) -> Tensor:
    return torch.stack([gradient(model, image + noise, target) for noise in noises]).mean(0)


def last_spatial_call(model: nn.Module, image: Tensor) -> int:
    found = -1

    def look(number: int, output: Tensor) -> Tensor:
        nonlocal found
        if output.dim() == 4 and output[0, 0].numel() > 1:
            found = number
        return output

    with torch.no_grad(), relu_calls(look):
        model(image.clone().unsqueeze(0))
    return found


def site_gradient(
    model: nn.Module, image: Tensor, target: int, call: int, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Output of a ReLU call (C, h, w), and the response's gradient there with that output scaled."""
    seen: list[Tensor] = []

    def replace(number: int, output: Tensor) -> Tensor:
        if number != call:
            return output
        seen.append(output.detach().clone())
        seen.append((scale * output).detach().requires_grad_())
        return seen[1].clone()

    with relu_calls(replace):
        response = model(image.clone().unsqueeze(0))[0, target]
    return seen[0][0], torch.autograd.grad(response, seen[1])[0][0]


def gradcam(model: nn.Module, image: Tensor, target: int, call: int) -> Tensor:
    """(1, H, W)."""
    activation, slope = site_gradient(model, image, target, call)
    cam = torch.zeros(activation.shape[1:], dtype=image.dtype)
    for channel, its_slope in zip(activation, slope, strict=True):
        cam += channel * its_slope.mean()
    return upsample(cam.clamp(min=0), image)


def neuron_intgrad_star(
    model: nn.Module, image: Tensor, target: int, call: int, alphas: Sequence[float], weights: Sequence[float]
) -> Tensor:
    """(1, H, W)."""
    total = 0
    for alpha, weight in zip(alphas, weights, strict=True):
        activation, slope = site_gradient(model, image, target, call, alpha)
        total = total + weight * slope
    return upsample((activation * total).sum(0).clamp(min=0), image)


def upsample(cam: Tensor, image: Tensor) -> Tensor:
    """(1, H, W) from (h, w): each pixel's centre lies between four centres of ``cam``, or at its border."""
    height, width = image.shape[1:]
    result = torch.zeros(1, height, width, dtype=image.dtype)
    for i in range(height):
        for j in range(width):
            y = max((i + 0.5) * cam.shape[0] / height - 0.5, 0)
            x = max((j + 0.5) * cam.shape[1] / width - 0.5, 0)
            top, left = int(y), int(x)
            below, right = min(top + 1, cam.shape[0] - 1), min(left + 1, cam.shape[1] - 1)
            down, across = y - top, x - left
            result[0, i, j] = (1 - down) * ((1 - across) * cam[top, left] + across * cam[top, right]) + down * (
                (1 - across) * cam[below, left] + across * cam[below, right]
            )
    return result
