"""The networks of the zoo once more, written out: weights in, logits out, every site a call of ``site``.

Nothing of cpath and no activation function of torch is used. ``site(name, pre)`` gets the pre-activation and
returns what the network goes on with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Site = Callable[[str, Tensor], Tensor]
Network = Callable[[Weights, Tensor, Site], Tensor]


def conv(w: Weights, name: str, x: Tensor, padding: int = 0) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), padding=padding)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    def channels(values: Tensor) -> Tensor:
        return values[None, :, None, None]

    centred = x - channels(w[f"{name}.running_mean"])
    scaled = centred / torch.sqrt(channels(w[f"{name}.running_var"]) + 1e-5)
    return scaled * channels(w[f"{name}.weight"]) + channels(w[f"{name}.bias"])


def sequential(w: Weights, x: Tensor, site: Site) -> Tensor:
    x = site("1", conv(w, "0", x, 1))
    x = site("4", conv(w, "3", F.avg_pool2d(x, 2), 1))
    x = F.adaptive_avg_pool2d(x, 2).flatten(1)
    return linear(w, "9", site("8", linear(w, "7", x)))


def residual(w: Weights, x: Tensor, site: Site) -> Tensor:
    x = site("relu", norm(w, "bn1", conv(w, "conv1", x, 1)))
    for block in ("layer1.0", "layer1.1"):
        out = site(f"{block}.relu", norm(w, f"{block}.bn1", conv(w, f"{block}.conv1", x, 1)))
        out = norm(w, f"{block}.bn2", conv(w, f"{block}.conv2", out, 1))
        x = site(f"{block}.relu#2", out + x)
    return linear(w, "fc", x.mean((2, 3)))


def vgg(w: Weights, x: Tensor, site: Site) -> Tensor:
    x = site("1", conv(w, "0", x, 1))
    x = site("4", conv(w, "3", F.max_pool2d(x, 2), 1))
    x = F.adaptive_avg_pool2d(x, 2).flatten(1)
    return linear(w, "11", site("9", linear(w, "8", x)))


def functional(w: Weights, x: Tensor, site: Site) -> Tensor:
    x = site("stem:relu", norm(w, "stem.bn", conv(w, "stem.conv", x, 1)))
    x = site(":relu", x - 0.1)
    x = site("body:relu", norm(w, "body.bn", conv(w, "body.conv", F.max_pool2d(x, 2), 1)))
    return linear(w, "fc", site(":relu#2", linear(w, "hidden", x.mean((2, 3)))))


def _fire(w: Weights, name: str, x: Tensor, site: Site) -> Tensor:
    x = site(f"{name}.squeeze_activation", conv(w, f"{name}.squeeze", x))
    one = site(f"{name}.expand1x1_activation", conv(w, f"{name}.expand1x1", x))
    three = site(f"{name}.expand3x3_activation", conv(w, f"{name}.expand3x3", x, 1))
    return torch.cat([one, three], 1)


def fire(w: Weights, x: Tensor, site: Site) -> Tensor:
    x = F.max_pool2d(site("1", conv(w, "0", x, 1)), 2)
    x = _fire(w, "4", _fire(w, "3", x, site), site)
    return site("6", conv(w, "5", x)).mean((2, 3)) * w["9.weight"]


def squeezenet1_0(w: Weights, x: Tensor, site: Site) -> Tensor:
    """torchvision's, with all 26 sites."""
    x = site("features.1", F.conv2d(x, w["features.0.weight"], w["features.0.bias"], stride=2))
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for index in (3, 4, 5):
        x = _fire(w, f"features.{index}", x, site)
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for index in (7, 8, 9, 10):
        x = _fire(w, f"features.{index}", x, site)
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    x = _fire(w, "features.12", x, site)
    return site("classifier.2", conv(w, "classifier.1", x)).mean((2, 3))


NETWORKS: dict[str, Network] = {
    "sequential": sequential,
    "residual": residual,
    "vgg": vgg,
    "functional": functional,
    "fire": fire,
}
"""By the names of the zoo."""
