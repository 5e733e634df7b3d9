from __future__ import annotations

import math

import pytest
import torch

import cpath
from cpath import PathwayCounter
from cpath.errors import InputError, MaskError
from tests import zoo
from tests.oracles import classes as oracle

SHAPES = {"first": (3, 2, 2), "second": (7,)}
UNITS, CLASSES = 19, 4


def pathways(count: int, seed: int = 0, share: float = 0.3, **more) -> cpath.Pathway:
    generator = torch.Generator().manual_seed(seed)
    masks = {name: torch.rand(count, *shape, generator=generator) < share for name, shape in SHAPES.items()}
    return cpath.Pathway.from_masks(masks, method="mine", requested_sparsity=70, **more)


def labels_of(count: int, seed: int = 1) -> torch.Tensor:
    """Classes 0 to 2: class 3 has no inputs."""
    return torch.randint(CLASSES - 1, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def counted():
    pathway, labels = pathways(25), labels_of(25)
    counter = PathwayCounter(CLASSES)
    for start in range(0, 25, 4):  # in batches, the last of one
        counter.update(pathway[start : start + 4], labels[start : start + 4])
    return counter, pathway, labels


def test_frequencies_are_those_of_counting_one_by_one(counted):
    counter, pathway, labels = counted
    expected = oracle.frequencies(pathway.flat.tolist(), labels.tolist(), CLASSES, UNITS)
    torch.testing.assert_close(counter.frequency, torch.tensor(expected), equal_nan=True)
    assert counter.inputs.tolist() == [labels.tolist().count(number) for number in range(CLASSES)]
    assert counter.counts.dtype == torch.uint8


@pytest.mark.parametrize("frequency", [0, 0.25, 0.5, 0.9])
def test_pathways_and_similarities_of_classes_are_those_of_sets(counted, frequency):
    counter, pathway, labels = counted
    sets = oracle.class_pathways(pathway.flat.tolist(), labels.tolist(), CLASSES, UNITS, frequency)
    found = counter.pathway(frequency)
    assert [oracle.kept_units(row) for row in found.flat.tolist()] == [frozenset(one) for one in sets]
    assert found.target.tolist() == [0, 1, 2, 3]
    assert found.layout.shapes == SHAPES
    for measure in ("jaccard", "containment"):
        expected = [[getattr(oracle, measure)(one, other) for other in sets] for one in sets]
        similar = counter.similarity(frequency, measure)
        torch.testing.assert_close(similar, torch.tensor(expected, dtype=similar.dtype), equal_nan=True)


def test_similarities_by_site_are_those_of_each_site_alone(counted):
    counter, _, _ = counted
    found = counter.similarity_by_site(0.25, "containment")
    for name, where in counter.layout.slices.items():
        sets = [oracle.kept_units(row) for row in counter.pathway(0.25).flat[:, where].tolist()]
        expected = [[oracle.containment(one, other) for other in sets] for one in sets]
        torch.testing.assert_close(found[name], torch.tensor(expected, dtype=found[name].dtype), equal_nan=True)
    with pytest.raises(InputError, match="measure must be"):
        counter.similarity(0.5, "cosine")


def test_half_of_the_inputs_is_not_more_than_half(counted):
    counter = PathwayCounter(1)
    masks = torch.tensor([[True, True], [False, True]])
    counter.update(cpath.Pathway.from_masks({"a": masks}), [0, 0])
    assert counter.pathway(0.5).flat.tolist() == [[False, True]]


def test_typicality_is_that_of_the_oracle(counted):
    counter, _, _ = counted
    asked, of = pathways(9, seed=5), torch.tensor([0, 1, 2, 0, 1, 2, 0, 3, 1])
    found = counter.typicality(asked, of)
    shares = counter.frequency.tolist()
    expected = [
        math.nan if number == 3 else oracle.typicality(row, shares[number])
        for row, number in zip(asked.flat.tolist(), of.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), equal_nan=True, rtol=1e-5, atol=0)
    assert torch.isnan(counter.typicality(pathways(1, share=0), [0])).all()


def test_typicality_by_site_is_that_of_each_site_alone(counted):
    counter, pathway, labels = counted
    found = counter.typicality_by_site(pathway, labels)
    for name, where in counter.layout.slices.items():
        rows, shares = pathway.flat[:, where].tolist(), counter.frequency[:, where].tolist()
        expected = [
            oracle.typicality(row, shares[number]) for row, number in zip(rows, labels.tolist(), strict=True)
        ]
        torch.testing.assert_close(
            found[name], torch.tensor(expected, dtype=found[name].dtype), equal_nan=True, rtol=1e-5, atol=0
        )
    assert list(found) == list(SHAPES)


def test_specific_units_are_frequent_in_one_class_and_rare_in_others(counted):
    counter, _, _ = counted
    shares = counter.frequency
    found = counter.specific(1, frequency=0.3, elsewhere=0.3)
    assert {name: tuple(mask.shape) for name, mask in found.items()} == SHAPES
    flat = torch.cat([mask.flatten() for mask in found.values()])
    expected = [
        shares[1, unit].item() >= 0.3 and shares[0, unit].item() <= 0.3 and shares[2, unit].item() <= 0.3
        for unit in range(UNITS)
    ]
    assert flat.tolist() == expected
    assert any(expected)
    with pytest.raises(InputError, match="no inputs of class 3"):
        counter.specific(3)


def test_parts_that_are_counted_apart_and_merged_are_the_whole(counted, tmp_path):
    counter, pathway, labels = counted
    first, second, empty = PathwayCounter(CLASSES), PathwayCounter(CLASSES), PathwayCounter(CLASSES)
    first.update(pathway[:11], labels[:11])
    second.update(pathway[11:], labels[11:])
    second.save(tmp_path / "second.safetensors")
    before = second.counts.clone()
    empty.merge(PathwayCounter(CLASSES))
    for part in (first, PathwayCounter.load(tmp_path / "second.safetensors")):
        empty.merge(part)
    assert torch.equal(empty.counts, counter.counts)
    assert torch.equal(empty.inputs, counter.inputs)
    assert torch.equal(second.counts, before)
    assert str(empty) == str(counter)


def test_counts_grow_with_the_number_of_inputs():
    everything = cpath.Pathway.from_masks({"a": torch.ones(300, 5, dtype=torch.bool)})
    counter = PathwayCounter(2)
    counter.update(everything, [1] * 300)
    assert counter.counts[1].tolist() == [300] * 5
    assert counter.counts.dtype == torch.int16
    other = PathwayCounter(2)
    for _ in range(109):
        other.update(everything, [1] * 300)
    counter.merge(other)
    assert counter.counts[1].tolist() == [110 * 300] * 5
    assert counter.counts.dtype == torch.int32
    assert counter.frequency[1].tolist() == [1] * 5


def test_the_order_of_sites_does_not_count(counted):
    counter, pathway, labels = counted
    masks = {name: pathway.masks[name] for name in reversed(SHAPES)}
    turned = cpath.Pathway.from_masks(masks, method="mine", requested_sparsity=70)
    other = PathwayCounter(CLASSES)
    other.update(turned, labels)
    assert torch.equal(other.layout.flatten(other.layout.views(other.counts)), other.counts)
    total = PathwayCounter(CLASSES)
    total.update(pathway, labels)
    total.update(turned, labels)
    total.merge(other)
    assert torch.equal(total.counts, 3 * counter.counts)
    torch.testing.assert_close(counter.typicality(turned, labels), counter.typicality(pathway, labels))


def test_a_network_is_restricted_to_the_pathway_of_a_class():
    model, images = zoo.make("sequential"), zoo.images()
    found = cpath.find_pathway(model, images, sparsity=50)
    counter = PathwayCounter(10)
    counter.update(found, [2] * len(images))
    mine = counter.pathway(0)[2]
    union = cpath.Pathway.from_masks({name: mask.any(0, keepdim=True) for name, mask in found.masks.items()})
    with torch.no_grad(), mine.restrict(model):
        got = model(images)
    with torch.no_grad(), union.restrict(model):
        expected = model(images)
    assert torch.equal(got, expected)


def test_a_reset_counter_is_new(counted):
    counter, pathway, labels = counted
    counter.reset()
    assert str(counter) == "PathwayCounter(classes=4, inputs=0)"
    with pytest.raises(InputError, match="the counter is empty"):
        _ = counter.frequency
    counter.update(pathway, labels)
    assert counter.inputs.sum() == 25


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 4], "labels must be classes from 0 to 3; got 0 to 4"),
        ([0, -1, 2], "labels must be classes from 0 to 3; got -1 to 2"),
        ([0, 1], r"labels must be \(3,\) whole numbers"),
        ([0.0, 1.0, 2.0], r"labels must be \(3,\) whole numbers.*float"),
    ],
)
def test_labels_that_are_no_classes_are_refused_and_nothing_is_counted(labels, message):
    counter = PathwayCounter(CLASSES)
    with pytest.raises(InputError, match=message):
        counter.update(pathways(3), labels)
    assert str(counter) == "PathwayCounter(classes=4, inputs=0)"


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (lambda: cpath.Pathway.from_masks({"first": torch.ones(1, 2).bool()}), MaskError, "another network"),
        (lambda: cpath.Pathway.from_masks(pathways(1).masks, method="b"), InputError, "pathways of method 'mine'"),
        (lambda: cpath.Pathway.from_masks(pathways(1).masks, method="mine"), InputError, "of sparsity 70"),
        (lambda: "pathway", InputError, r"must be a cpath\.Pathway"),
    ],
)
def test_pathways_of_something_else_are_refused(counted, other, error, message):
    counter, _, _ = counted
    before = counter.counts.clone()
    with pytest.raises(error, match=message):
        counter.update(other(), [0])
    assert torch.equal(counter.counts, before)


def test_counters_of_something_else_are_not_merged(counted):
    counter, _, _ = counted
    for other, message in ((PathwayCounter(3), "4 and 3 classes"), ("counter", r"only a cpath\.PathwayCounter")):
        with pytest.raises(InputError, match=message):
            counter.merge(other)
    channels = PathwayCounter(CLASSES)
    masks = {"first": torch.ones(1, 3, 1, 1).bool()}
    channels.update(cpath.Pathway.from_masks(masks, unit="channel"), [0])
    with pytest.raises(MaskError, match="counts neurons, the pathways are of channels"):
        counter.merge(channels)


@pytest.mark.parametrize("frequency", [1, -0.1, True, "half", math.nan])
def test_a_frequency_is_a_share_below_one(counted, frequency):
    with pytest.raises(InputError, match="frequency must be a share"):
        counted[0].pathway(frequency)


def test_a_damaged_file_is_said(counted, tmp_path):
    file = tmp_path / "counter.safetensors"
    counted[0].save(file)
    whole = bytearray(file.read_bytes())
    whole[-3] ^= 1
    file.write_bytes(whole)
    with pytest.raises(InputError, match="damaged"):
        PathwayCounter.load(file)
    with pytest.raises(InputError, match="no such pathway counter file"):
        PathwayCounter.load(tmp_path / "nothing")
