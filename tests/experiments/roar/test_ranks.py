from __future__ import annotations

import pytest
import torch

import cpath
from cpath.evaluation import parts_of, rank_pixels
from experiments.engine.job import Job, run
from experiments.roar.ranks import Ranking, Ranks
from tests.experiments.roar.shared import TINY, job_of


@pytest.fixture
def attributed(monkeypatch) -> list[tuple[str, int]]:
    """Name of the attribution and number of images of every call."""
    attribute, calls = cpath.attribute, []

    def counting(model, images, attribution, target=None, **rest):
        assert target is None  # the predicted class
        calls.append((attribution.name, len(images)))
        return attribute(model, images, attribution, target, **rest)

    monkeypatch.setattr(cpath, "attribute", counting)
    return calls


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Number of images of every request of a test's splits."""
    batch, sizes = cpath.data.TensorSplit.batch, []

    def counting(split, indices):
        sizes.append(len(indices))
        return batch(split, indices)

    monkeypatch.setattr(cpath.data.TensorSplit, "batch", counting)
    return sizes


def _job(job, *overrides: str) -> Job:
    found = job(*TINY, "experiment=roar_table", "attribution=gradients", *overrides)
    assert found.model is not None
    return found


def _rank(job: Job, batch: int = 30, rank_by: str = "absolute") -> dict[str, Ranks]:
    return Ranking(job, batch, 64, rank_by).ranks()


def _all_of(ranks: Ranks) -> dict[str, torch.Tensor]:
    return {split: torch.cat(list(stored.chunks())) for split, stored in ranks.splits.items()}


def test_maps_are_of_the_predicted_class_of_every_split_in_batches(table_cfg, quick, attributed):
    table_cfg.attribution = {"gradients": {}}
    table_cfg.experiment.batch = 30
    run(table_cfg)
    assert attributed == [("gradients", size) for size in (30, 30, 4, 16, 30, 6)]


@pytest.mark.parametrize("batch", [1000, 30, 63, 35])  # 63 and 35 leave one image for the last file
def test_ranks_are_those_of_the_library_in_files_of_any_size(job, quick, batch):
    ours = _job(job)
    found = _rank(ours, batch)["gradients"]
    for split, images in parts_of(ours.data).items():
        pixels = images.batch(torch.arange(len(images)))
        expected = rank_pixels(cpath.attribute(ours.model, pixels, "gradients"), pixels)
        assert torch.equal(_all_of(found)[split], expected), split
    assert found.digest == _rank(ours, 7)["gradients"].digest, "the size of the files determines nothing"


def test_images_are_decoded_once_for_all_attributions(job, quick, attributed, decoded):
    ours = _job(job, "+attribution.gbp={}", "+attribution.random={seed: 0}")
    decoded.clear()
    _rank(ours)
    assert decoded == [30, 30, 4, 16, 30, 6]
    assert len(attributed) == 3 * 6
    decoded.clear()
    _rank(ours)
    assert decoded == []


def test_a_stopped_job_continues_after_the_last_finished_batch(job, quick, attributed, monkeypatch):
    expected = _all_of(_rank(_job(job, "+attribution.gbp={}"))["gbp"])
    whole = cpath.attribute

    def stopping(model, images, attribution, *args, **rest):
        if len(attributed) >= before + 5:
            raise KeyboardInterrupt
        return whole(model, images, attribution, *args, **rest)

    ours = _job(job, "+attribution.gbp={}", "sites=[relu,gelu]")  # other ranks than those above
    before = len(attributed)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(cpath, "attribute", stopping)
        _rank(ours)
    done = attributed[before:]
    assert [size for _, size in done] == [30, 30, 30, 30, 4]
    found = _rank(ours)
    assert len(attributed) - before == 2 * 6, "nothing is made twice"
    assert [size for _, size in attributed[before + 5 :]] == [4, 16, 16, 30, 30, 6, 6]
    for split, ranks in _all_of(found["gbp"]).items():
        assert torch.equal(ranks, expected[split])


def test_a_damaged_file_alone_is_made_again(job, quick, attributed, caplog):
    ours = _job(job)
    found = _rank(ours)["gradients"]
    expected = _all_of(found)
    file = found.splits["train"].files[1]
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    attributed.clear()
    again = _rank(ours)["gradients"]
    assert attributed == [("gradients", 30)]
    assert "damaged" in caplog.text
    for split, ranks in _all_of(again).items():
        assert torch.equal(ranks, expected[split])


def test_ranks_depend_on_all_that_determines_them(job, quick):
    def of(*overrides: str, rank_by: str = "absolute") -> str:
        (ranks,) = _rank(_job(job, *overrides), 100, rank_by).values()
        return ranks.digest

    found = [of(), of("seed=1"), of(rank_by="signed"), of("sites=[relu,gelu]"), of("dataset.channels=3")]
    assert len(set(found)) == len(found)
    assert of("experiment.max_batch=3", "percent=10", "experiment.fill=1") == found[0]


def test_ranks_of_edited_code_are_made_anew(table_cfg, quick, users):
    users.write(
        "my_map",
        """
        from dataclasses import dataclass

        import cpath
        from my_formula import formula

        @dataclass(frozen=True, kw_only=True)
        class Mine(cpath.attribution.Attribution):
            def maps(self, probe):
                return formula(probe.images)
        """,
    )
    table_cfg.attribution = {"mine": {"_target_": "my_map.Mine"}}
    found = []
    for body in ("x", "x", "x.sin()"):
        users.write("my_formula", f"def formula(x):\n    return {body}\n")
        found.append(_rank(job_of(table_cfg))["mine"])
    assert found[0].digest == found[1].digest
    assert found[2].digest != found[0].digest
    assert not torch.equal(_all_of(found[2])["test"], _all_of(found[0])["test"])
