"""Relations between pathways of different methods on the same images: overlap, dead neurons, responses."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from cpath.devices import widest
from cpath.errors import InputError, described
from cpath.inputs import Given, Inputs, check_inputs
from cpath.layout import SiteLayout
from cpath.pathway import Pathway, check_pathway
from cpath.response import check_logits, class_logits, predicted
from cpath.sites import evaluating


def site_counts(flat: Tensor, layout: SiteLayout) -> Tensor:
    """Count the True in each site.

    Args:
        flat: Booleans (B, neurons).
        layout: Layout of the sites in ``flat``.

    Returns:
        Counts (B, sites).

    Example:
        >>> pathway = cpath.find_pathway(model, images, "random", sparsity=75)
        >>> cpath.analysis.site_counts(pathway.flat, pathway.layout).sum(1)
        tensor([88, 88])
    """
    if flat.device.type != "cpu":
        return torch.stack([flat[:, where].sum(1) for where in layout.slices.values()], 1)
    rows = [[np.count_nonzero(row[where]) for where in layout.slices.values()] for row in flat.numpy()]
    return torch.tensor(rows, device="cpu")


def response_preservation(
    model: nn.Module, inputs: Given | Inputs, pathway: Pathway, logits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Measure what is left of the response in the restricted network.

    Args:
        model: The model that the pathway was found in.
        inputs: Tensor (B, …) on the model's device, a tuple or a mapping, see `cpath.inputs`.
        pathway: Pathway of the same inputs, or of one input, which then applies to all.
        logits: Logits (B, classes) of the unrestricted network, or its output, which save a forward pass.

    Returns:
        Two tensors (B,). The first is the relative change (p′ − p) / p of the probability of the pathway's target
        class, or of the predicted class if the pathway names none; −1 means that the response is lost. The second
        is True where both networks predict the same class.

    Raises:
        InputError: If inputs or logits are unusable.
        MaskError: If the pathway does not fit the model or the inputs.

    Example:
        >>> pathway = cpath.find_pathway(model, images, "active", sparsity=0)  # keeps all active neurons
        >>> change, kept = cpath.analysis.response_preservation(model, images, pathway)
        >>> bool(change.abs().max() < 1e-6), kept.tolist()
        (True, [True, True])
    """
    check_pathway(pathway)
    checked = check_inputs(model, inputs)
    with torch.no_grad(), evaluating(model):
        # Copies go in, because a model may change its input in place.
        logits = check_logits(checked.clone().call(model) if logits is None else logits, len(checked))
        with pathway.restrict(model) as seen:
            restricted = check_logits(checked.clone().call(model), len(checked))
        pathway.check_reached(seen)
    target = predicted(logits) if pathway.target is None else pathway.target.to(logits.device)
    target = target.expand(len(checked)).unsqueeze(1)
    exact = widest(logits.device)
    before, after = (
        class_logits(values.to(exact), len(checked)).softmax(1).gather(1, target).squeeze(1)
        for values in (logits, restricted)
    )
    return after / before - 1, predicted(restricted) == predicted(logits)


def compare_pathways(
    pathways: Mapping[str, Pathway], activations: Mapping[str, Tensor], *, by_site: bool = True
) -> dict[tuple[str, str], Tensor]:
    """Measure overlaps and dead shares of pathways on the same images.

    The pairs cost one pass over the masks each, the sites nothing more.

    Args:
        pathways: Pathways by name.
        activations: Outputs (B, *site) by site of the unrestricted network, as `cpath.observe` gives them.
        by_site: Also measure within each site.

    Returns:
        Values (B,) by (name, measure), NaN for 0/0. The measures are ``realised_sparsity`` (per cent),
        ``dead_share`` (fraction), ``jaccard/<other name>`` (fraction) for every other pathway and, ``by_site``,
        ``site_dead_share/<site>``, ``site_jaccard/<other name>/<site>`` and ``site_kept/<site>`` (per cent of the
        site's neurons).

    Raises:
        InputError: If there is no pathway, or something else in its place.
        MaskError: If pathways or activations belong to different networks, input sizes or images.

    Example:
        >>> with cpath.observe(model) as seen, torch.no_grad():
        ...     _ = model(images)
        >>> found = {name: cpath.find_pathway(model, images, name, 80) for name in ("neuron_mct", "random")}
        >>> measures = cpath.analysis.compare_pathways(found, seen.activations, by_site=False)
        >>> measures["neuron_mct", "dead_share"].tolist()
        [0.0, 0.0]
        >>> torch.equal(measures["neuron_mct", "jaccard/random"], measures["random", "jaccard/neuron_mct"])
        True
    """
    if not isinstance(pathways, Mapping):
        raise InputError(f"pathways must be pathways by name, not {described(pathways)}.")
    if not pathways:
        raise InputError("compare_pathways needs at least one pathway.")
    for pathway in pathways.values():
        check_pathway(pathway)
    first = next(iter(pathways.values()))
    layout, sites = first.layout, list(first.layout.shapes)
    flat = {name: first.aligned(pathway) for name, pathway in pathways.items()}
    sizes = torch.tensor(list(layout.sizes.values()), device=first.flat.device)
    exact = widest(first.flat.device)
    dead = first.dead(activations)
    measures: dict[tuple[str, str], Tensor] = {}
    kept: dict[str, Tensor] = {}

    def note(name: str, measure: str, part: Tensor, whole: Tensor) -> None:
        """Note ratios of counts (B, sites), over the network and by site."""
        measures[name, measure] = part.sum(1).to(exact) / whole.sum(1)
        if by_site:
            ratios = (part.to(exact) / whole).unbind(1)
            measures.update(
                {(name, f"site_{measure}/{site}"): ratio for site, ratio in zip(sites, ratios, strict=True)}
            )

    for name, masks in flat.items():
        kept[name] = site_counts(masks, layout)
        measures[name, "realised_sparsity"] = 100 * (1 - kept[name].sum(1).to(exact) / layout.units)
        note(name, "dead_share", site_counts(masks & dead, layout), kept[name])
        if by_site:
            shares = (100 * kept[name].to(exact) / sizes).unbind(1)
            measures.update({(name, f"site_kept/{site}"): share for site, share in zip(sites, shares, strict=True)})
    for one, other in combinations(flat, 2):
        both = site_counts(flat[one] & flat[other], layout)
        either = kept[one] + kept[other] - both
        note(one, f"jaccard/{other}", both, either)
        note(other, f"jaccard/{one}", both, either)
    return measures
