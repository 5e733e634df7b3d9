"""What a stopped job has measured is not measured again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import pytest

from experiments.engine.cache import Entry
from experiments.engine.config import parse
from experiments.engine.images import Batch
from experiments.engine.job import Job, run
from experiments.engine.measuring import read_per_image
from experiments.engine.provenance import read_manifest

# Each has five images, in batches of three and two.
JOBS = {
    "path_analysis": ["sparsity=[80,95]"],
    "linearity": ["experiment.neurons=4", "sparsity=90"],
    "faithfulness": ["experiment.keep=[1,20]", "experiment.controls.copies=[shift]"],
    "quadrature": ["experiment.reference=[midpoint,3]", "experiment.rules=[[endpoint,2]]", "sparsity=90"],
    "degradation": ["percent=[10,50]", "experiment.road.images=4", "experiment.road.percent=[50]"],
    "sanity_checks": ["experiment.draws=2", "experiment.blocks=[fc,conv]", "experiment.strip.images=1"],
}
NAMES = [
    *("method=neuron_mct", "+method.neuron_intgrad={nodes: 3}", "+method.random={seed: 0}"),
    *("attribution=gradients", "+attribution.gradcam={}", "+attribution.sobel={}"),
]


@pytest.mark.parametrize("experiment", list(JOBS))
def test_a_stopped_job_continues_behind_its_last_finished_batch(configure, trained, monkeypatch, experiment):
    settings = [f"experiment={experiment}", "experiment.images=5", "experiment.batch=3", *JOBS[experiment], *NAMES]
    cfg, made, part_of = configure(*settings), [], Job.part

    @contextmanager
    def dying_at_the_second(job: Job, batch: Batch, kind: str, *code: object) -> Iterator[Entry]:
        with part_of(job, batch, kind, *code) as part:
            if part.missing and kind == "measures":
                made.append(len(batch))
                if len(made) == 2:
                    raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(Job, "part", dying_at_the_second)
    folder = Job(parse(cfg)).folder
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    assert read_manifest(folder)["status"] == "stopped"
    resumed = run(cfg)
    assert made == [3, 2, 2]  # the second batch, of two images, again
    assert read_per_image(folder).image.nunique() == 5
    assert read_manifest(folder)["begun"] == 2
    pd.testing.assert_frame_equal(resumed, run(configure(*settings, "redo=true")))
    assert made[3:] == [3, 2]
