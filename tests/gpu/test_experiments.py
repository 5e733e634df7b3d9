"""Jobs on a GPU: their tables are those of the CPU, and what one of them has left serves the other."""

from __future__ import annotations

import pytest
import torch

from tests.experiments.conftest import configure as configure
from tests.experiments.conftest import job as job

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
JOBS = {
    "path_analysis": ["sparsity=[80,95]", "method=[neuron_mct,random]"],
    "degradation": ["attribution=[gradients,random]", "experiment.percent=[10,50]", "experiment.road.images=0"],
    "faithfulness": ["method=[neuron_mct]"],
    "linearity": ["sparsity=80", "method=[neuron_mct]", "experiment.neurons=5"],
}


@pytest.mark.parametrize("experiment", JOBS)
def test_a_table_is_that_of_the_cpu(gpu, job, experiment):
    settings = [f"experiment={experiment}", "experiment.images=5", "experiment.batch=3", *JOBS[experiment]]
    one, other = [job(*settings, f"device={device.type}", "redo=true").run() for device in (CPU, gpu)]
    assert one[["method", "metric", "x"]].equals(other[["method", "metric", "x"]])
    for column in ("value", "ci_low", "ci_high"):
        assert other[column].tolist() == pytest.approx(one[column].tolist(), rel=1e-3, abs=1e-4, nan_ok=True)
