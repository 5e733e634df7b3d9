"""Export: the pathway of channels as a smaller network, with the pruned channels taken out of the layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpath.checks import check_number
from cpath.errors import InputError, MaskError, SiteError
from cpath.optional import optional
from cpath.pathway import Pathway, check_pathway
from cpath.response import class_logits
from cpath.sites import evaluating, intercept, unwrap

_REQUIREMENT = "torch-pruning>=1.6"
_PRODUCERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def smaller_network(model: nn.Module, pathway: Pathway, images: Tensor, *, tolerance: float = 1e-4) -> nn.Module:
    """Take the channels that a pathway prunes out of a copy of the network, by Torch-Pruning.

    A channel can be taken out where nothing but the layers behind its site reads it. Where a site's channels are
    added to those of another layer, as behind the shortcuts of a ResNet, they cannot: leave such sites out when the
    pathway is found, as in ``sites=("relu", "!*relu#2")``.

    Args:
        model: The network that the pathway was found in.
        pathway: The pathway of one input, or of a class, in units of channels.
        images: A few inputs (B, …), on which the smaller network is compared with the restricted one.
        tolerance: Largest difference of a logit, relative to the largest logit, that counts as equal.

    Returns:
        A smaller network in eval mode that gives the logits of the restricted one. Its layers have other sizes than
        those that the model's class makes: its ``state_dict`` fits no new model of that class.

    Raises:
        InputError: If the pathway is of more than one input, of other units than channels or with another baseline
            than zero, or if the logits are not equal: the architecture does not allow it.
        SiteError: If the channels of a site belong to no layer alone.
        MaskError: If the pathway belongs to another network, or keeps no channel of a site.
        MissingPackageError: If torch-pruning is not installed.

    Source: Fang et al., DepGraph: Towards any structural pruning, CVPR 2023.

    Example:
        >>> pathway = cpath.find_pathway(model, images, sparsity=30, unit="channel")[0]
        >>> small = cpath.smaller_network(model, pathway, images)
        >>> with pathway.restrict(model):
        ...     restricted = model(images)
        >>> torch.allclose(small(images), restricted, atol=1e-5)
        True
    """
    check_pathway(pathway)
    if len(pathway) != 1:
        raise InputError(f"the pathway is of {len(pathway)} inputs: choose one, as in pathway[0].")
    if pathway.layout.unit != "channel":
        raise InputError(
            f"the pathway is of {pathway.layout.unit}s: only channels can be taken out of a network "
            "(find_pathway(…, unit='channel'))."
        )
    if pathway.baseline is not None:
        raise InputError("the pathway has a baseline other than zero, which a smaller network has no place for.")
    check_number("tolerance", tolerance)
    pruning = optional("torch_pruning", _REQUIREMENT, "a smaller network")
    with evaluating(model), torch.no_grad(), pathway.restrict(model):
        expected = class_logits(model(images.clone()), len(images))
    small = copy.deepcopy(unwrap(model)).eval()
    layers = _layers_before_sites(small, pathway, images)
    names = {layer: name for name, layer in small.named_modules()}
    graph = pruning.DependencyGraph().build_dependency(small, example_inputs=images[:1], verbose=False)
    for site, mask in pathway.masks.items():
        pruned = (~mask.reshape(-1)).nonzero().flatten().tolist()
        if not pruned:
            continue
        if len(pruned) == mask.numel():
            raise MaskError(f"the pathway keeps no channel of site '{site}', and a layer needs one: prune less.")
        _take_out(pruning, graph, layers[site], site, pruned, names)
    for parameter in small.parameters():
        parameter.grad = None
    with torch.no_grad():
        found = class_logits(small(images.clone()), len(images))
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= tolerance:
        raise InputError(
            f"the smaller network does not give the logits of the restricted one (relative difference "
            f"{difference:.2g}): something else than the layers behind a site reads its channels. Leave such sites "
            "out when the pathway is found."
        )
    return small


def _layers_before_sites(model: nn.Module, pathway: Pathway, images: Tensor) -> dict[str, nn.Module]:
    """Find, for each site, the layer with as many output channels that ran last before it."""
    ran: list[nn.Module] = []
    found: dict[str, nn.Module] = {}

    def visit(name: str, output: Tensor) -> Tensor:
        channels = pathway.layout.sizes.get(name)
        fitting = [layer for layer in reversed(ran) if _channels_of(layer) == channels]
        if fitting:
            found[name] = fitting[0]
        return output

    hooks = [
        layer.register_forward_hook(lambda layer, *_: ran.append(layer))
        for layer in model.modules()
        if isinstance(layer, _PRODUCERS)
    ]
    try:
        sites = intercept(model, visit, sites=pathway.sites, left_out=pathway.left_out_of(model))
        with torch.no_grad(), sites:
            model(images[:1].clone())
    finally:
        for hook in hooks:
            hook.remove()
    missing = [site for site in pathway.layout.shapes if site not in found]
    if missing:
        raise SiteError(
            f"no convolution or linear layer makes the channels of site '{missing[0]}': they cannot be taken out. "
            f"Leave it out when the pathway is found (sites=(…, '!{missing[0]}'))."
        )
    return found


def _channels_of(layer: nn.Module) -> int:
    return int(getattr(layer, "out_channels", getattr(layer, "out_features", 0)))


def _take_out(
    pruning: Any, graph: Any, layer: nn.Module, site: str, pruned: Sequence[int], names: dict[nn.Module, str]
) -> None:
    """Take channels out of a layer and of what reads them, unless another layer makes them too."""
    prune = pruning.prune_linear_out_channels if isinstance(layer, nn.Linear) else pruning.prune_conv_out_channels
    group = graph.get_pruning_group(layer, prune, idxs=list(pruned))
    others = [
        dependency.target.module
        for dependency, _ in group
        if isinstance(dependency.target.module, _PRODUCERS)
        and dependency.target.module is not layer
        and graph.is_out_channel_pruning_fn(dependency.handler)
    ]
    if others:
        raise SiteError(
            f"the channels of site '{site}' are added to those of layer '{names.get(others[0], '?')}', and cannot "
            f"be taken out alone. Leave the site out when the pathway is found (sites=(…, '!{site}'))."
        )
    group.prune()
