"""What a stopped job has measured is not measured again."""

from __future__ import annotations

import importlib
import json

import pandas as pd
import pytest

from experiments.framework.job import job_folder

# Each has five images, in batches of three and two.
JOBS = {
    "path_analysis": ["sparsity=[80,95]"],
    "linearity": ["experiment.neurons=4", "sparsity=90"],
    "quadrature": ["experiment.reference=[midpoint,3]", "experiment.rules=[[endpoint,2]]", "sparsity=90"],
    "degradation": ["experiment.percents=[10,50]", "experiment.road.images=4", "experiment.road.percents=[50]"],
    "sanity_checks": ["experiment.draws=2", "experiment.blocks=[fc,conv]", "experiment.strip.images=1"],
}
METHODS = {"neuron_mct": {}, "neuron_intgrad": {"nodes": 3}, "random": {"seed": 0}}
ATTRIBUTIONS = {"gradients": {}, "gradcam": {}, "sobel": {}}


@pytest.mark.parametrize("experiment", list(JOBS))
def test_a_stopped_job_goes_on_behind_its_last_finished_batch(configure, trained, monkeypatch, experiment):
    cfg = configure(f"experiment={experiment}", "experiment.images=5", "experiment.batch=3", *JOBS[experiment])
    cfg.method, cfg.attribution = METHODS, ATTRIBUTIONS
    module, calls = importlib.import_module(f"experiments.{experiment}"), []
    measure_in_parts = module.measure_in_parts

    def dying_at_the_second(job, images, origin, measure, what):
        def dying(where: slice, number: int):
            calls.append(where.stop - where.start)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return measure(where, number)

        return measure_in_parts(job, images, origin, dying, what)

    monkeypatch.setattr(module, "measure_in_parts", dying_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        module.run(cfg)
    assert json.loads((job_folder(cfg) / "manifest.json").read_text())["status"] == "stopped"
    resumed = module.run(cfg)
    assert calls == [3, 2, 2]  # the second batch, of two images, again
    assert len(pd.read_csv(job_folder(cfg) / "per_image.csv.gz")) == 5
    cfg.redo = True
    pd.testing.assert_frame_equal(resumed, module.run(cfg))
