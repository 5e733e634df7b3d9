import os
import pickle
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import cpath
from cpath.bits import pack_bits, unpack_bits
from cpath.layout import SiteLayout
from cpath.storage import checksum, kept_tensors, read_tensors, replacing, write_tensors
from tests import zoo

shapes = st.lists(st.integers(1, 5), min_size=0, max_size=3).map(tuple)
names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8)
layouts = st.dictionaries(names, shapes, min_size=1, max_size=5).map(SiteLayout)


@st.composite
def pathways(draw) -> cpath.Pathway:
    layout, batch = draw(layouts), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    flat = torch.rand(batch, layout.units, generator=generator) < share
    target = draw(st.one_of(st.none(), st.lists(st.integers(0, 10**6), min_size=batch, max_size=batch)))
    return cpath.Pathway(
        flat,
        layout,
        draw(names),
        draw(st.one_of(st.none(), st.floats(0, 100, exclude_max=True))),
        None if target is None else torch.tensor(target),
        tuple(draw(st.lists(st.sampled_from(cpath.ACTIVATIONS), min_size=1, max_size=3))),
    )


@st.composite
def scores(draw) -> cpath.Scores:
    layout, batch = draw(layouts), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    residual = None
    if draw(st.booleans()):
        residual = {name: torch.rand(batch, generator=generator) for name in layout.shapes}
        residual[draw(st.sampled_from(sorted(residual)))][0] = float("nan")
    return cpath.Scores(
        torch.rand(batch, layout.units, generator=generator).to(dtype),
        layout,
        draw(names),
        torch.randint(0, 1000, (batch,), generator=generator),
        tuple(draw(st.lists(st.sampled_from(cpath.ACTIVATIONS), min_size=1, max_size=3))),
        residual,
    )


def assert_same(one: Tensor | None, other: Tensor | None) -> None:
    assert (one is None) == (other is None)
    if one is not None:
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def assert_same_pathway(one: cpath.Pathway, other: cpath.Pathway) -> None:
    assert list(one.layout.shapes.items()) == list(other.layout.shapes.items())
    assert_same(one.flat, other.flat)
    assert_same(one.target, other.target)
    assert (one.method, one.requested_sparsity, one.sites) == (
        other.method,
        other.requested_sparsity,
        other.sites,
    )


@given(pathways())
def test_pathways_come_back_as_they_were(tmp_path_factory, pathway):
    path = tmp_path_factory.mktemp("files") / "p.safetensors"
    pathway.save(path)
    loaded = cpath.Pathway.load(path)
    assert_same_pathway(loaded, pathway)
    assert torch.equal(loaded.sparsity, pathway.sparsity)


@given(scores())
def test_scores_come_back_as_they_were(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("files") / "s.safetensors"
    scores.save(path)
    loaded = cpath.Scores.load(path)
    assert list(loaded.layout.shapes.items()) == list(scores.layout.shapes.items())
    assert_same(loaded.flat, scores.flat)
    assert_same(loaded.target, scores.target)
    assert (loaded.method, loaded.sites) == (scores.method, scores.sites)
    assert (loaded.residual is None) == (scores.residual is None)
    if scores.residual is not None:
        assert list(loaded.residual) == list(scores.residual)
        for name, values in scores.residual.items():
            assert_same(loaded.residual[name], values)
    assert torch.equal(loaded.pathway(50).flat, scores.pathway(50).flat)


@pytest.fixture
def pathway() -> cpath.Pathway:
    return cpath.find_pathway(zoo.make("fire"), zoo.images(), sparsity=80)


def test_loaded_pathway_restricts_as_the_original(tmp_path, pathway, images):
    model = zoo.make("fire")
    pathway.save(tmp_path / "p")
    with pathway.restrict(model):
        expected = model(images)
    with cpath.Pathway.load(tmp_path / "p").restrict(model):
        assert torch.equal(model(images), expected)


def test_a_pathway_file_takes_one_bit_a_neuron(tmp_path):
    layout = SiteLayout({"a": (1000, 10, 10)})
    flat = torch.rand(2, layout.units, generator=torch.Generator().manual_seed(0)) < 0.5
    cpath.Pathway(flat, layout).save(tmp_path / "p")
    assert (tmp_path / "p").stat().st_size < 2 * layout.units / 8 + 1000


def test_files_replace_what_was_there_and_leave_nothing_else(tmp_path, pathway):
    path = tmp_path / "new folder" / "p.safetensors"
    pathway.save(path)
    pathway[:1].save(path)
    assert [file.name for file in path.parent.iterdir()] == ["p.safetensors"]
    assert len(cpath.Pathway.load(path)) == 1


def test_reader_of_the_old_file_keeps_reading_it(tmp_path, pathway):
    path = tmp_path / "p"
    pathway.save(path)
    before = path.read_bytes()
    with open(path, "rb") as reader:
        pathway[:1].save(path)
        assert reader.read() == before
    assert path.read_bytes() != before


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, pathway, monkeypatch):
    path = tmp_path / "p"
    pathway.save(path)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        pathway[:1].save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Damage


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, bytes]:
    """Intact files by class."""
    folder = tmp_path_factory.mktemp("intact")
    model, images = zoo.make("vgg"), zoo.images(2)
    cpath.find_pathway(model, images, sparsity=80).save(folder / "p")
    cpath.score(model, images, "neuron_intgrad").save(folder / "s")
    return {"Pathway": (folder / "p").read_bytes(), "Scores": (folder / "s").read_bytes()}


both = pytest.mark.parametrize("kind", ["Pathway", "Scores"])


def load(kind: str, path) -> cpath.Pathway | cpath.Scores:
    return getattr(cpath, kind).load(path)


@both
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(tmp_path_factory, contents, kind, share):
    path = tmp_path_factory.mktemp("files") / "f"
    data = contents[kind]
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(cpath.InputError):
        load(kind, path)


@both
@given(place=st.floats(0, 1, exclude_max=True), in_header=st.booleans(), change=st.integers(1, 255))
@settings(max_examples=300)
def test_files_with_a_changed_byte_are_refused(tmp_path_factory, contents, kind, place, in_header, change):
    path = tmp_path_factory.mktemp("files") / "f"
    data = bytearray(contents[kind])
    length = 8 + struct.unpack("<Q", data[:8])[0]
    index = int(place * length) if in_header else length + int(place * (len(data) - length))
    old, new = data[index], data[index] ^ change
    data[index] = new
    path.write_bytes(data)
    if chr(old).isspace() and chr(new) in "\t\n\r ":  # means the same between the words of the header
        return
    if (chr(old), chr(new)) in ((".", "E"), (".", "e")) and in_header:  # 80.0 and 80E0 are one number
        return
    with pytest.raises(cpath.InputError, match=r"damaged|not a cpath|format|no such"):
        load(kind, path)


@both
def test_files_with_bytes_added_are_refused(tmp_path, contents, kind):
    (tmp_path / "f").write_bytes(contents[kind] + b"\0")
    with pytest.raises(cpath.InputError, match="damaged"):
        load(kind, tmp_path / "f")


@both
def test_missing_files_and_folders_are_refused(tmp_path, kind):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(cpath.InputError, match="no such"):
            load(kind, path)


@both
def test_other_files_are_refused(tmp_path, contents, kind):
    other = {"Pathway": "Scores", "Scores": "Pathway"}[kind]
    (tmp_path / "other kind").write_bytes(contents[other])
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights")
    save_file({"masks": torch.zeros(3)}, tmp_path / "foreign", metadata={"cpath": "[1, 2]"})
    save_file({"masks": torch.zeros(3)}, tmp_path / "no json", metadata={"cpath": "{"})
    torch.save({"weight": torch.zeros(3)}, tmp_path / "torch")
    (tmp_path / "text").write_text("sites: 3\n")
    (tmp_path / "empty").write_bytes(b"")
    for path in tmp_path.iterdir():
        with pytest.raises(cpath.InputError, match=r"not a cpath|not a safetensors file"):
            load(kind, path)


@both
def test_pickles_are_refused_without_being_unpickled(tmp_path, kind):
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / "f").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(cpath.InputError, match="not a safetensors file"):
        load(kind, tmp_path / "f")
    assert not (tmp_path / "exploded").exists()


def test_files_of_a_newer_format_are_refused(tmp_path):
    write_tensors(tmp_path / "f", {"masks": torch.zeros(3)}, {"kind": "pathway", "format": 999})
    with pytest.raises(cpath.InputError, match="pathway format 999, this cpath reads 1"):
        cpath.Pathway.load(tmp_path / "f")


def test_masks_that_do_not_fit_their_sites_are_refused(tmp_path, pathway):
    metadata = {
        "kind": "pathway",
        "format": 1,
        "method": "custom",
        "requested_sparsity": None,
        "sites": {"a": [17]},
        "activations": ["relu"],
    }
    for masks in (torch.zeros(1, 2, dtype=torch.uint8), torch.zeros(1, 3)):
        write_tensors(tmp_path / "f", {"masks": masks}, metadata)
        with pytest.raises(cpath.InputError, match="masks do not fit"):
            cpath.Pathway.load(tmp_path / "f")
    write_tensors(
        tmp_path / "f", {"scores": torch.zeros(1, 2), "target": torch.zeros(1)}, metadata | {"kind": "scores"}
    )
    with pytest.raises(cpath.InputError, match="scores do not fit"):
        cpath.Scores.load(tmp_path / "f")


def test_tensors_of_any_layout_are_written_and_metadata_comes_back(tmp_path):
    tensors = {
        "transposed": torch.arange(6).view(2, 3).T,
        "expanded": torch.tensor(7).expand(4),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "half": torch.rand(3, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_(),
    }
    write_tensors(tmp_path / "f", tensors, {"kind": "thing", "format": 3, "note": "ü", "values": [1.5, None]})
    found, metadata = read_tensors(tmp_path / "f", "thing", 3)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert metadata["note"] == "ü"
    assert metadata["values"] == [1.5, None]


EVERY_TYPE = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn),
    *(torch.complex64, torch.complex128),
]

STRIDED = {
    "contiguous": lambda x: x,
    "one number of a row": lambda x: x[:1],
    "one number of a column": lambda x: x.view(4, 6)[:1, 3],
    "one number of many strides": lambda x: x.view(4, 6)[2:3, 5:6].T,
    "one number, repeated": lambda x: x[3].expand(5),
    "one number, with more dimensions": lambda x: x[5::24].expand(1, 1),
    "expanded": lambda x: x[:3].view(3, 1).expand(3, 4),
    "expanded by 1": lambda x: x.as_strided((1, 1), (17, 23)),
    "transposed": lambda x: x.view(4, 6).T,
    "permuted": lambda x: x.view(2, 3, 4).permute(2, 0, 1),
    "every other": lambda x: x[::2],
    "inner": lambda x: x.view(4, 6)[1:3, 2:4],
    "channels last": lambda x: x.view(2, 2, 3, 2).contiguous(memory_format=torch.channels_last),
    "scalar": lambda x: x[4],
    "nothing": lambda x: x[:0],
    "nothing of three dimensions": lambda x: x.view(4, 6)[:, 6:].expand(7, 4, 0),
}


def numbers(dtype: torch.dtype) -> Tensor:
    values = torch.arange(24) % 2 if dtype == torch.bool else torch.arange(24)
    return values.to(dtype) * 1j if dtype.is_complex else values.to(dtype)


@pytest.mark.parametrize("dtype", EVERY_TYPE, ids=str)
@pytest.mark.parametrize("kind", list(STRIDED))
def test_a_checksum_is_that_of_the_values_whatever_their_strides(kind, dtype):
    strided = STRIDED[kind](numbers(dtype))
    plain = torch.tensor(strided.tolist(), dtype=dtype).reshape(strided.shape)
    assert checksum({"x": strided}, {}) == checksum({"x": plain}, {})
    if strided.numel():
        other = plain.clone()
        other.view(-1)[-1] = numbers(dtype)[1] if plain.view(-1)[-1].item() in (False, 0) else 0
        assert checksum({"x": other}, {}) != checksum({"x": plain}, {})


def test_a_checksum_is_of_values_names_types_shapes_and_metadata():
    # A number once for all: files that were written before must not count as damaged.
    tensors = {"a": torch.arange(6, dtype=torch.float32).view(2, 3), "b": torch.tensor(True)}
    assert checksum(tensors, {"kind": "thing"}) == "9ee0d467"
    x = torch.zeros(2, 3)
    others = [{"b": x}, {"a": x.view(3, 2)}, {"a": x.int()}, {"a": x, "b": x[:0]}]
    assert len({checksum(other, {}) for other in [{"a": x}, *others]} | {checksum({"a": x}, {"k": 1})}) == 6


def test_views_that_autograd_or_conj_made_have_the_checksum_of_their_values():
    x = torch.arange(4.0, requires_grad=True)
    assert checksum({"x": x}, {}) == checksum({"x": torch.arange(4.0)}, {})
    z = torch.tensor([1 + 2j, 3 - 4j])
    assert checksum({"x": z.conj()}, {}) == checksum({"x": torch.tensor([1 - 2j, 3 + 4j])}, {})
    assert checksum({"x": z.conj().imag}, {}) == checksum({"x": torch.tensor([-2.0, 4.0])}, {})


@pytest.mark.parametrize("kind", list(STRIDED))
def test_tensors_of_any_strides_come_back(tmp_path, kind):
    x = numbers(torch.float32)
    tensors = {
        "one": STRIDED[kind](x),
        "the same memory": STRIDED[kind](x),
        "all of it": x,
        "bit": x.to(torch.bool),
    }
    write_tensors(tmp_path / "f", tensors, {"kind": "thing", "format": 1})
    found, _ = read_tensors(tmp_path / "f", "thing", 1)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert_same(found[name], tensor.contiguous())


# Who may read a file


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600), (0, 0o666)])
def test_files_have_the_mode_of_any_new_file(tmp_path, pathway, mask, mode):
    model, images = zoo.make("vgg"), zoo.images(2)
    with umask(mask):
        pathway.save(tmp_path / "pathway")
        cpath.score(model, images).save(tmp_path / "scores")
        write_tensors(tmp_path / "tensors", {"x": torch.zeros(1)}, {"kind": "thing", "format": 1})
        with replacing(tmp_path / "text") as partial:
            partial.write_text("text")
        folder = tmp_path / "new" / "folder"
        write_tensors(folder / "tensors", {"x": torch.zeros(1)}, {"kind": "thing", "format": 1})
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert stat.S_IMODE(file.stat().st_mode) == mode, file
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_a_replaced_file_gets_the_mode_of_a_new_one(tmp_path, pathway):
    file = tmp_path / "p"
    pathway.save(file)
    file.chmod(0o400)
    with umask(0o022):
        pathway.save(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_what_a_killed_process_left_is_no_hindrance(tmp_path):
    with replacing(tmp_path / "f") as partial:
        partial.write_text("new")
    partial.write_text("left")
    partial.chmod(0o400)
    with umask(0o022), replacing(tmp_path / "f") as again:
        assert again == partial
        assert not again.exists()
        again.write_text("newer")
    assert (tmp_path / "f").read_text() == "newer"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o644


def test_a_file_that_was_not_written_replaces_nothing(tmp_path):
    (tmp_path / "f").write_text("before")
    with pytest.raises(cpath.StorageError, match="No such file"), replacing(tmp_path / "f"):
        pass
    assert (tmp_path / "f").read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_a_kept_file_is_made_once_and_again_where_other_metadata_is_expected(tmp_path, caplog):
    made = []

    def kept(value: float, **about: object) -> float:
        def make() -> None:
            made.append(value)
            metadata = {"kind": "thing", "format": 1, "note": "whatever", **about}
            write_tensors(tmp_path / "f", {"x": torch.tensor([value])}, metadata)

        return kept_tensors(tmp_path / "f", "thing", 1, make, about)[0]["x"].item()

    assert kept(1.0, images=["a", "b"], model="m") == 1.0
    assert kept(2.0, images=["a", "b"], model="m") == 1.0
    assert kept(3.0, images=["a"], model="m") == 3.0
    assert "was made of other images, and is made again" in caplog.text
    assert kept(4.0, images=["a"], model="n", code="c") == 4.0
    assert "was made of other model, code, and is made again" in caplog.text
    assert kept(5.0) == 4.0
    assert made == [1.0, 3.0, 4.0]


def test_processes_of_the_same_number_on_two_machines_do_not_write_to_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    partials = []
    for host in ("here", "there"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        with replacing(tmp_path / "f") as partial:
            partial.write_text(host)
            partials.append(partial)
    assert partials[0] != partials[1]
    assert all(partial.match(".*.partial") for partial in partials)
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


# Formats


def test_signs_come_back(tmp_path):
    scores = cpath.score(zoo.make("vgg"), zoo.images(), "neuron_mct", unit="channel")
    scores.save(tmp_path / "s")
    loaded = cpath.Scores.load(tmp_path / "s")
    for name, values in scores.signed.items():
        assert torch.equal(loaded.signed[name], values)
    assert torch.equal(loaded.pathway(20, positive=True).flat, scores.pathway(20, positive=True).flat)
    assert loaded.layout == scores.layout


def test_files_of_the_first_format_still_load(tmp_path):
    """Written as the first format was: without units, baselines and signs."""
    about = {"method": "custom", "sites": {"a": [2, 5]}, "activations": ["relu"], "left_out": ["b"]}
    masks = torch.tensor([[True, False, False, True, True, False, True, False, False, True]])
    header = {"kind": "pathway", "format": 1, "requested_sparsity": 40.0, "sparsity": [50.0], **about}
    write_tensors(tmp_path / "p", {"masks": torch.tensor([[154, 64]], dtype=torch.uint8)}, header)
    pathway = cpath.Pathway.load(tmp_path / "p")
    assert torch.equal(pathway.flat, masks)
    assert pathway.layout == SiteLayout({"a": (2, 5)}, "neuron")
    assert (pathway.requested_sparsity, pathway.left_out, pathway.baseline) == (40.0, ("b",), None)
    values = {"scores": torch.arange(10.0)[None], "target": torch.tensor([3])}
    write_tensors(tmp_path / "s", values, {"kind": "scores", "format": 1, **about})
    scores = cpath.Scores.load(tmp_path / "s")
    assert torch.equal(scores.flat, values["scores"])
    assert (scores.layout, scores.baseline) == (pathway.layout, None)
    with pytest.raises(cpath.InputError, match="of the format before signs"):
        _ = scores.signed


def test_bits_are_packed_alike_everywhere():
    values = torch.rand(3, 21, generator=torch.Generator().manual_seed(0)) < 0.5
    packed = pack_bits(values)
    assert torch.equal(unpack_bits(packed, 21), values)
    elsewhere = torch.nn.functional.pad(values.to(torch.uint8), (0, 3)).view(3, 3, 8)
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    assert torch.equal(packed, (elsewhere * places).sum(2).to(torch.uint8))
