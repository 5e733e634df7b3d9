from __future__ import annotations

from cpath.viz import colour_of, in_order

ATTRIBUTIONS = [
    "neuron_intgrad",
    "neuron_intgrad_star",
    "neuron_mct",
    "gradcam",
    "gbp",
    "input_intgrad",
    "input_mct",
    "gradients",
    "smoothgrad",
    "random",
    "sobel",
]


def test_every_attribution_has_its_own_place_and_colour():
    assert in_order(reversed(ATTRIBUTIONS)) == ATTRIBUTIONS
    assert len({colour_of(name) for name in ATTRIBUTIONS}) == len(ATTRIBUTIONS)
