"""Loading of a user's own weights: from a file of tensors, never from a pickle of code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cpath.errors import InputError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "model.", "net.")


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load weights from a file into a model.

    Weights wrapped under "state_dict" and the like, and names with the prefix of DataParallel or Lightning, are
    understood.

    Args:
        model: The model, changed in place.
        path: A safetensors file, or a file of `torch.save`, read with ``weights_only``.

    Raises:
        InputError: If the file is missing, holds more than tensors, is damaged, or does not fit the model.

    Example:
        >>> torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
        >>> cpath.models.load_checkpoint(model, folder / "weights.pth")
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no such checkpoint: {path.resolve()}")
    state = _tensors(_read(path), path)
    wanted = model.state_dict()
    for prefix in _PREFIXES:
        if not wanted.keys() & state.keys() and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    problems = [
        *(
            f"{name} is missing"
            for name in wanted.keys() - state.keys()
            if not name.endswith("num_batches_tracked")
        ),
        *(f"{name} is unknown to the model" for name in state.keys() - wanted.keys()),
        *(
            f"{name} has shape {tuple(state[name].shape)}, the model needs {tuple(wanted[name].shape)}"
            for name in state.keys() & wanted.keys()
            if state[name].shape != wanted[name].shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(f"{path} does not fit the model: {'; '.join(sorted(problems)[:3])}{more}.")
    model.load_state_dict(state, strict=False)


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, and loading it could run code: save model.state_dict() instead."
        ) from error
    except Exception as error:  # a damaged file can raise anything in the reader
        raise InputError(f"{path} is damaged or no checkpoint: {error}") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds no state dict (tensors by name).")
    return dict(content)
