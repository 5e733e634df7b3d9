"""Numbers of single images, written and read."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.engine.measuring import PER_IMAGE, read_per_image


def test_numbers_are_numbers_in_a_table_without_rows_too(tmp_path):
    columns = ["image", "method", "metric", "x_name", "x", "value"]
    pd.DataFrame(columns=columns).to_csv(tmp_path / PER_IMAGE, index=False)
    empty = read_per_image(tmp_path)
    assert list(empty.columns) == columns
    assert empty.value.dtype == np.float64  # so that it can be put together with others
    pd.DataFrame([["a", "none", "cmd", "", "", None], ["a", "none", "cmd", "", "", 0.5]], columns=columns).to_csv(
        tmp_path / PER_IMAGE, index=False
    )
    frame = read_per_image(tmp_path)
    assert frame.method.tolist() == ["none", "none"]
    assert np.isnan(frame.value[0])
    assert frame.value[1] == 0.5
