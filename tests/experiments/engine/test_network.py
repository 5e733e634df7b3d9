from __future__ import annotations

import pytest
from torch import nn

from cpath.errors import InputError
from experiments import train
from experiments.engine import network


class Fixed(nn.Module):
    """Network of a given number of logits, whatever the dataset has."""

    def __init__(self, classes: int, shape: tuple[int, int, int], logits: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 4), nn.ReLU())
        self.fc = nn.Linear(4, logits)

    def forward(self, images):
        return self.fc(self.body(images))


def _job(job, logits, *own):
    target = "model._target_=tests.experiments.engine.test_network.Fixed"
    return job(
        "model=custom", "model.name=fixed", target, f"+model.logits={logits}", "dataset.size=8", *own, small=False
    )


@pytest.mark.parametrize(("logits", "classes"), [(9, 9), (11, 11), (1, 2)])  # one logit tells two classes apart
def test_a_model_with_another_number_of_classes_is_refused_before_any_work(job, monkeypatch, logits, classes):
    made = _job(job, logits, "experiment=train")
    monkeypatch.setattr(network, "trained_entry", None)  # no training may begin
    told = rf"'fixed' is for {classes} classes, dataset 'digits' has 10: .*10 logits"
    with pytest.raises(InputError, match=told):
        _ = made.model
    monkeypatch.setattr(train, "trained_entry", None)
    with pytest.raises(InputError, match=told):
        made.experiment.run(made)


def test_a_model_with_the_datasets_number_of_classes_passes(job):
    made = _job(job, 10)
    network.check_model(network.build_model(made.config, made.data), made.data, made.config)
