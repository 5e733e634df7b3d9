"""Links from the pages of source code back to where an object is described."""

from __future__ import annotations

import re
from collections.abc import Mapping


def lead_back(body: str, described: Mapping[str, str]) -> str:
    """Have links lead to descriptions that are there.

    Sphinx names an object by the package that was read first, under which it may not be listed.

    Args:
        body: HTML of a page of source code.
        described: Page of each object, by the object's full name.

    Returns:
        The page, whose links lead to the object's page, or to the package's if it is nowhere described.
    """

    def link(found: re.Match[str]) -> str:
        up, folder, package, name = found.groups()
        parts = name.split(".")
        ends = [".".join(parts[start:]) for start in range(1, len(parts))]
        names = [name, *(f"{owner}.{end}" for owner in (package, "cpath") for end in ends)]
        best = next((one for one in names if one in described), None)
        return f'href="{up}{described[best]}.html#{best}"' if best else f'href="{up}{folder}{package}.html"'

    return re.sub(r'href="((?:\.\./)*)(reference/generated/)([\w.]+)\.html#([\w.]+)"', link, body)
