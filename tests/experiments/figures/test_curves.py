from __future__ import annotations

import pandas as pd

from experiments.figures.curves import coinciding
from tests.rows import made_row


def test_curves_that_hide_each_other_are_named():
    table = pd.DataFrame(
        made_row(method, "lerf_change", percent / 100 + 0.05 * number, "percent_removed", percent)
        for number, method in enumerate(["gradients", "gradcam", "gbp"])
        for percent in (1, 5, 10, 50, 90)
    )
    assert coinciding(table) == ""
    table.loc[table.method == "gbp", "value"] = table[table.method == "gradcam"].value.to_numpy()
    assert coinciding(table) == " The curves of GradCAM and GBP coincide."
