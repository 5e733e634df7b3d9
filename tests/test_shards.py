from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import cpath
from cpath.errors import InputError, MissingImageError
from cpath.methods import NeuronIntGrad
from tests import zoo

IMAGES = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    return zoo.make("sequential")


def loader(images=IMAGES):
    return DataLoader(TensorDataset(images, torch.arange(len(images))), batch_size=3)


def test_a_folder_holds_the_scores_of_every_input(model, tmp_path):
    images = zoo.images(7)
    shards = cpath.score_dataset(model, loader(images), tmp_path / "scores", "neuron_mct", unit="channel")
    whole = cpath.score(model, images, "neuron_mct", unit="channel")
    assert (len(shards), str(shards)) == (7, "ScoreShards(inputs=7, files=3)")
    again = cpath.ScoreShards(tmp_path / "scores")
    for number in (0, 2, 3, 6, -1):
        torch.testing.assert_close(again[number].flat, whole[range(7)[number]].flat)
        assert again[number].target.tolist() == whole[range(7)[number]].target.tolist()
    torch.testing.assert_close(torch.cat([batch.flat for batch in again.batches()]), whole.flat)
    assert [len(one) for one in again[2:5]] == [1, 1, 1]
    for number in (7, -8):
        with pytest.raises(MissingImageError, match="the folder has scores of 7"):
            again[number]


def test_one_input_is_read_from_the_file_of_its_batch_alone(model, tmp_path):
    cpath.score_dataset(model, loader(zoo.images(7)), tmp_path)
    (tmp_path / "scores-000000.safetensors").write_bytes(b"")
    shards = cpath.ScoreShards(tmp_path)
    assert len(shards[5]) == 1
    with pytest.raises(InputError, match="damaged"):
        shards[0]


def test_a_stopped_call_continues_behind_its_last_file(model, tmp_path, monkeypatch):
    images, scored = zoo.images(7), []

    class Stopping(cpath.methods.NeuronMCT):
        def contributions(self, probe):
            scored.append(len(probe))
            if len(scored) == 2:
                raise KeyboardInterrupt
            return super().contributions(probe)

    with pytest.raises(KeyboardInterrupt):
        cpath.score_dataset(model, loader(images), tmp_path, Stopping())
    assert len(cpath.ScoreShards(tmp_path)) == 3
    shards = cpath.score_dataset(model, loader(images), tmp_path, Stopping())
    assert scored == [3, 3, 3, 1]
    cpath.score_dataset(model, loader(images), tmp_path, Stopping())
    assert len(scored) == 4
    assert len(shards) == 7
    (tmp_path / "scores-000001.safetensors").unlink()
    shards = cpath.score_dataset(model, loader(images), tmp_path, Stopping())
    assert scored[4:] == [3]
    torch.testing.assert_close(shards[4].flat, cpath.score(model, images[4:5]).flat)


def test_scores_of_something_else_are_refused_before_any_work(model, tmp_path):
    images = zoo.images(7)
    cpath.score_dataset(model, loader(images), tmp_path, NeuronIntGrad(nodes=2))
    other = zoo.make("sequential")
    with torch.no_grad():
        next(iter(other.parameters())).add_(1)
    for change, message in (
        ({"model": other}, "of another model"),
        ({"method": "neuron_mct"}, "of another method: neuron_intgrad"),
        ({"method": NeuronIntGrad(nodes=3)}, "of another method"),
        ({"target": 2}, "of another target: None, not 2"),
        ({"unit": "channel"}, "of another unit"),
        ({"baseline": {}}, "of another baseline"),
    ):
        settings = {"model": model, "method": NeuronIntGrad(nodes=2), **change}
        with pytest.raises(InputError, match=message):
            cpath.score_dataset(settings.pop("model"), loader(images), tmp_path, **settings)
    with pytest.raises(InputError, match="target must be None, a class or a function"):
        cpath.score_dataset(model, loader(images), tmp_path, target=torch.tensor([1, 2, 3]))
    with pytest.raises(InputError, match="batch 1 of the loader is another"):
        changed = images.clone()
        changed[4] += 1
        cpath.score_dataset(model, loader(changed), tmp_path, NeuronIntGrad(nodes=2))
    assert len(cpath.ScoreShards(tmp_path)) == 7


def test_a_folder_without_scores_and_a_loader_without_batches_are_refused(model, tmp_path):
    with pytest.raises(InputError, match="holds no scores"):
        cpath.ScoreShards(tmp_path)
    with pytest.raises(InputError, match="the loader gave no batch"):
        cpath.score_dataset(model, [], tmp_path / "empty")


def test_inputs_of_several_tensors_are_no_labels(tmp_path):
    from cpath.shards import _without_labels

    words, mask, labels = torch.zeros(2, 4).long(), torch.ones(2, 4).long(), torch.tensor([0, 1])
    assert _without_labels([words, labels]) is words
    assert _without_labels((words, mask)) == (words, mask)
    assert _without_labels([words, mask]) == (words, mask)
    assert _without_labels({"input_ids": words}) == {"input_ids": words}
