"""What a configuration names, made and checked: dataset, model, methods, device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

import cpath
from cpath.attribution import Attribution
from cpath.data import ImageData
from cpath.errors import InputError
from cpath.models import load_checkpoint
from cpath.threshold import check_sparsity
from experiments.framework.choices import import_modules
from experiments.framework.devices import device_of
from experiments.framework.identity import code_digest, named_code
from experiments.framework.store import ArtifactStore, digest
from experiments.framework.trained import MODEL_FILE, train_artifact, weights_of


@dataclass(frozen=True)
class Images:
    """Test images for an experiment, read a batch at a time."""

    data: ImageData
    indices: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def ids(self) -> list[str]:
        """A stable name for each."""
        return [self.data.test.ids[int(index)] for index in self.indices]

    def batch(self, where: slice) -> Tensor:
        """Images (B, C, H, W), on the device."""
        return self.data.test.batch(self.indices[where]).to(self.device)


def sparsities_of(cfg: DictConfig) -> list[float]:
    """The sparsities in the configuration, one or several, checked."""
    asked = list(cfg.sparsity) if isinstance(cfg.sparsity, ListConfig) else [cfg.sparsity]
    if not asked:
        raise InputError("sparsity is empty: name at least one, such as sparsity=90 or sparsity=[80,90].")
    return [check_sparsity(sparsity) for sparsity in asked]


def methods_of(cfg: DictConfig) -> dict[str, cpath.Method]:
    """The extraction methods in the configuration, by name; modules under ``imports`` may register more."""
    import_modules(cfg.imports)
    return {str(name): cpath.methods.get(str(name), **(settings or {})) for name, settings in cfg.method.items()}


def attributions_of(cfg: DictConfig) -> dict[str, Attribution]:
    """The attributions in the configuration, by name; modules under ``imports`` may register more."""
    import_modules(cfg.imports)
    return {
        str(name): cpath.attribution.get(str(name), **(settings or {}))
        for name, settings in cfg.attribution.items()
    }


def load_data(cfg: DictConfig) -> ImageData:
    """The dataset of the configuration, which says what determines it where the dataset does not."""
    data = _instantiate(cfg.dataset, "dataset", exclude=("name", "recipe", "published_as"))
    if not isinstance(data, ImageData):
        raise InputError(f"dataset._target_ must return cpath.data.ImageData, not {type(data).__name__}.")
    if data.settings:
        return data
    settings: Any = OmegaConf.to_container(cfg.dataset, resolve=True)
    settings["recipe"] = None
    return replace(data, settings={**settings, "code": named_code(settings)})


def build_model(cfg: DictConfig, data: ImageData) -> nn.Module:
    """The model of the configuration for the dataset, in eval mode; not yet trained unless it has weights."""
    overrides: dict[str, Any] = {"classes": len(data.classes), "shape": data.shape}
    if "weights" in cfg.model:
        overrides["weights"] = weights_of(cfg, data)
    torch.manual_seed(cfg.seed)  # the initial weights
    model = _instantiate(cfg.model, "model", exclude=("name",), **overrides)
    if not isinstance(model, nn.Module):
        raise InputError(f"model._target_ must return a torch.nn.Module, not {type(model).__name__}.")
    if cfg.checkpoint is not None:
        load_checkpoint(model, cfg.checkpoint)
    return model.eval()


def trained_model(cfg: DictConfig, data: ImageData, store: ArtifactStore) -> nn.Module:
    """The model of the configuration with weights: the checkpoint's, pretrained ones, or trained now."""
    model = build_model(cfg, data)
    check_sites(model, Images(data, torch.arange(1), torch.device("cpu")), cfg)
    if cfg.checkpoint is None and weights_of(cfg, data) is None:
        folder = train_artifact(cfg, data, store, model)
        load_checkpoint(model, folder / MODEL_FILE)
    return model.eval().to(device_of(cfg))


def fingerprint(model: nn.Module, cfg: DictConfig) -> str:
    """Hash of all that makes a model what it is: settings, code, and weights wherever they came from."""
    settings: Any = OmegaConf.to_container(cfg.model, resolve=True)
    classes = sorted(
        {type(part) for part in model.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__)
    )
    made_by = {
        "class": [type(model).__module__, type(model).__qualname__],
        "settings": {name: value for name, value in settings.items() if name not in ("name", "weights")},
        "code": [named_code(settings), code_digest(*classes)],
    }
    hasher = hashlib.sha256(digest(made_by).encode())
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()[:16]


@dataclass(frozen=True)
class Origin:
    """What a job's results come from beside its configuration: what was kept of another origin is made again."""

    model: str
    data: str
    code: str
    """Of the methods and attributions."""
    images: tuple[str, ...]

    def of(self, where: slice) -> dict[str, Any]:
        """The origin of what is known of some of the images, as metadata of a file."""
        return {"model": self.model, "data": self.data, "code": self.code, "images": list(self.images[where])}


def origin_of(
    cfg: DictConfig, model: nn.Module, images: Images, explainers: Iterable[cpath.Method | Attribution]
) -> Origin:
    """Where the results of ``explainers``, methods or attributions, for ``images`` come from."""
    data, code = digest(images.data.settings), code_digest(*explainers)
    return Origin(fingerprint(model, cfg), data, code, tuple(images.ids))


def load_images(cfg: DictConfig, data: ImageData) -> Images:
    """The test images of the experiment: ``experiment.images`` of them, drawn by the seed; all for null."""
    return Images(data, data.test.sample(cfg.experiment.images, cfg.seed), device_of(cfg))


def check_sites(model: nn.Module, images: Images, cfg: DictConfig) -> None:
    """Raises the library's error for a model without sites, or one that cannot take the images."""
    try:
        with cpath.sites.evaluating(model):
            cpath.Probe(model, images.batch(slice(0, 1)), activations=cfg.activations).record(gradients=False)
    except cpath.SiteError as error:
        raise cpath.SiteError(f"model '{cfg.model.name}': {error} (activations=[…] on the command line)") from error


def _instantiate(node: DictConfig, kind: str, exclude: tuple[str, ...], **overrides: Any) -> Any:
    missing = sorted(OmegaConf.missing_keys(node))
    if missing:
        raise InputError(f"{kind} '{node.get('name', '?')}' needs {'=… '.join(missing)}=… on the command line.")
    settings = {str(name): value for name, value in node.items() if name not in exclude} | overrides
    try:
        return instantiate(settings)
    except Exception as error:
        known = _innermost_cpath_error(error)
        if known is not None:
            raise known from None
        wrong = f"{kind} '{node.get('name', '?')}' cannot be made: {error.__cause__ or error}"
        if isinstance(error.__cause__, TypeError):
            called = ", ".join(f"{name}={value!r}" for name, value in settings.items() if name != "_target_")
            wrong += f". It was called as {node._target_}({called})."
        raise InputError(wrong) from error


def _innermost_cpath_error(error: BaseException | None) -> cpath.CpathError | None:
    while error is not None:
        if isinstance(error, cpath.CpathError):
            return error
        error = error.__cause__ or error.__context__
    return None
