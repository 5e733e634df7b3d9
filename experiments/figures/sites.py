"""Names of sites along the horizontal axis of a panel."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes


def name_sites(panel: Axes, sites: Sequence[str], room: int) -> None:
    """Name the sites along a panel, or some of them where there is no room for all.

    Args:
        panel: axes of matplotlib.
        sites: names, in the order of their places from 0.
        room: number of names that there is room for.
    """
    shown = range(0, len(sites), -(-len(sites) // room))
    look = {"rotation": 60, "ha": "right", "rotation_mode": "anchor", "fontsize": 7.5}
    panel.set_xticks(list(shown), [sites[place] for place in shown], **look)
