"""Loading of a user's own weights: from a file of tensors, never from a pickle of code."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cpath.errors import InputError, described
from cpath.sites import check_model

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")

# Parts of names that wrappers add: torch.compile, FSDP, the wrapper of activation checkpointing.
_ADDED = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_PARALLEL = frozenset({"module"})  # of DataParallel, but a network may call a part of its own so too


def load_checkpoint(model: nn.Module, path: str | Path, *, prefix: str | None = None) -> None:
    """Load weights from a file into a model.

    Weights wrapped under "state_dict" and the like are understood, and the names that `torch.compile`, DataParallel
    and FSDP give. If the file holds more than the network, as that of a LightningModule with a loss or a teacher
    does, the part that fits the model is found by its names and shapes.

    Args:
        model: The model, changed in place.
        path: A safetensors file, or a file of `torch.save`, read with ``weights_only``.
        prefix: Beginning of the names of the weights to load, such as "student.", if several parts of the file fit
            the model. "" stands for the whole file.

    Raises:
        InputError: If the file is missing, holds more than tensors, is damaged, or does not fit the model, or if
            several parts of it do.

    Example:
        >>> torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
        >>> cpath.models.load_checkpoint(model, folder / "weights.pth")
    """
    check_model(model)
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path must name the file of a checkpoint, not {described(path)}.")
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no such checkpoint: {path.resolve()}")
    content = _tensors(_read(path), path)
    names, part, problems = _matched(content, model.state_dict(), prefix, path, _ADDED)
    if problems:
        names, part, others = _matched(content, model.state_dict(), prefix, path, _ADDED | _PARALLEL)
        problems = problems if others else []
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(f"{path} does not fit the model: {'; '.join(problems[:3])}{more}.")
    model.load_state_dict({names[name]: tensor for name, tensor in part.items()}, strict=False)


def _matched(
    content: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    prefix: str | None,
    path: Path,
    added: frozenset[str],
) -> tuple[dict[str, str], dict[str, Tensor], list[str]]:
    """Compare the names of a file with those of a model, both without what wrappers have ``added``.

    Returns:
        The model's full names by these names; the part of the file that is chosen; what does not fit.
    """
    names, wanted = _plain(model, added)
    _, found = _plain(content, added)
    chosen = _choose(found, wanted, path) if prefix is None else _plain_name(prefix, added)
    part = _part(found, chosen)
    return names, part, _problems(part, wanted)


def _plain(state: Mapping[str, Tensor], added: frozenset[str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Get full names and tensors by the names without ``added``; by the full names if two would become alike."""
    names = {_plain_name(name, added): name for name in state}
    if len(names) < len(state):
        names = {name: name for name in state}
    return names, {plain: state[name] for plain, name in names.items()}


def _plain_name(name: str, added: frozenset[str]) -> str:
    return ".".join(part for part in name.split(".") if part not in added)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _choose(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> str:
    """Find the prefix of the part of ``state`` that fits; if none does, that with the most names of the model."""
    shared: Counter[str] = Counter()
    for name in state:
        starts = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
        shared.update(name[:start] for start in starts if name[start:] in wanted)
    if not shared or not _problems(state, wanted):
        return ""
    fitting = [prefix for prefix in shared if not _problems(_part(state, prefix), wanted)]
    if len(fitting) > 1:
        names = ", ".join(f"'{prefix}'" for prefix in sorted(fitting))
        raise InputError(
            f"several parts of {path} fit the model, those with the prefixes {names}. Say which one to load, for "
            f"example load_checkpoint(…, prefix='{min(fitting)}'), or save the state_dict() of that part alone."
        )
    return fitting[0] if fitting else max(shared, key=lambda prefix: (shared[prefix], -len(prefix)))


def _problems(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """List the differences in names and shapes."""
    return sorted(
        [
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
    )


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
    if isinstance(content, Mapping):  # modules may keep anything beside their tensors under a name of torch's
        content = {name: value for name, value in content.items() if not str(name).endswith("_extra_state")}
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds no state dict (tensors by name).")
    return content
