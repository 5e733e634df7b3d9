"""How pathways of different methods relate, on the same images: overlap, dead neurons, responses."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from cpath.errors import InputError
from cpath.layout import SiteLayout
from cpath.pathway import Pathway
from cpath.probe import check_images, check_logits
from cpath.sites import evaluating


def site_counts(flat: Tensor, layout: SiteLayout) -> Tensor:
    """(B, sites) number of True of ``flat`` (B, neurons) in each site."""
    if flat.device.type != "cpu":
        return torch.stack([flat[:, where].sum(1) for where in layout.slices.values()], 1)
    rows = [[np.count_nonzero(row[where]) for where in layout.slices.values()] for row in flat.numpy()]
    return torch.tensor(rows)


def response_preservation(
    model: nn.Module, images: Tensor, pathway: Pathway, logits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the restricted network makes of the response: (relative change, class kept), each (B,).

    The change is (p′ − p) / p of the probability of the pathway's target class (the predicted class when the
    pathway names none), −1 when the response is lost; the class is kept when both networks predict the same
    one. ``logits`` (B, classes) of the unrestricted network save a forward pass. Raises `InputError` for
    unusable images and logits, `MaskError` for a pathway that does not fit.
    """
    check_images(model, images)
    with torch.no_grad(), evaluating(model):
        # Copies go in, because a model may change its input in place.
        logits = check_logits(model(images.clone()) if logits is None else logits, len(images))
        with pathway.restrict(model) as seen:
            restricted = check_logits(model(images.clone()), len(images))
        pathway.check_reached(seen)
    target = logits.argmax(1) if pathway.target is None else pathway.target.to(logits.device).expand(len(images))
    target = target.unsqueeze(1)
    before = logits.double().softmax(1).gather(1, target).squeeze(1)
    after = restricted.double().softmax(1).gather(1, target).squeeze(1)
    return after / before - 1, restricted.argmax(1) == logits.argmax(1)


def compare_pathways(
    pathways: Mapping[str, Pathway], activations: Mapping[str, Tensor], *, by_site: bool = True
) -> dict[tuple[str, str], Tensor]:
    """Overlaps and dead shares of pathways (by name) on the same images: (B,) by (name, measure).

    ``activations`` (B, *site) by site are the unrestricted network's. Measures: ``realised_sparsity``,
    ``dead_share``, ``jaccard/<other name>`` for every other pathway and, ``by_site``,
    ``site_dead_share/<site>``, ``site_jaccard/<other name>/<site>`` and ``site_kept/<site>`` (per cent of the
    site's neurons). 0/0 is NaN. The pairs cost one pass over the masks each, the sites nothing more.

    Raises `InputError` for no pathways and for what is none, `MaskError` where pathways or activations belong to
    different networks, input sizes or images.
    """
    if not pathways:
        raise InputError("compare_pathways needs at least one pathway.")
    first = next(iter(pathways.values()))
    layout, sites = first.layout, list(first.layout.shapes)
    flat = {name: first.aligned(pathway) for name, pathway in pathways.items()}
    sizes = torch.tensor(list(layout.sizes.values()))
    dead = first.dead(activations)
    measures: dict[tuple[str, str], Tensor] = {}
    kept: dict[str, Tensor] = {}

    def note(name: str, measure: str, part: Tensor, whole: Tensor) -> None:
        """Ratios of counts (B, sites): over the network, and by site."""
        measures[name, measure] = part.sum(1).double() / whole.sum(1)
        if by_site:
            ratios = (part.double() / whole).unbind(1)
            measures.update(
                {(name, f"site_{measure}/{site}"): ratio for site, ratio in zip(sites, ratios, strict=True)}
            )

    for name, masks in flat.items():
        kept[name] = site_counts(masks, layout)
        measures[name, "realised_sparsity"] = 100 * (1 - kept[name].sum(1).double() / layout.neurons)
        note(name, "dead_share", site_counts(masks & dead, layout), kept[name])
        if by_site:
            shares = (100 * kept[name].double() / sizes.to(kept[name].device)).unbind(1)
            measures.update({(name, f"site_kept/{site}"): share for site, share in zip(sites, shares, strict=True)})
    for one, other in combinations(flat, 2):
        both = site_counts(flat[one] & flat[other], layout)
        either = kept[one] + kept[other] - both
        note(one, f"jaccard/{other}", both, either)
        note(other, f"jaccard/{one}", both, either)
    return measures
