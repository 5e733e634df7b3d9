"""Scores of a whole data set: a file for each batch, resumed where it stopped, read when needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cpath
from cpath.checks import check_count
from cpath.errors import InputError, MissingImageError, StorageError
from cpath.inputs import Inputs
from cpath.methods.base import Method, get
from cpath.response import Target
from cpath.scores import Scores, score
from cpath.sites import DEFAULT_SITES, check_sites
from cpath.storage import replacing
from cpath.units import NEURONS, Units, check_units

_INDEX = "index.json"
_FORMAT = 1


class ScoreShards(Sequence[Scores]):
    """Scores of a data set in a folder that `score_dataset` wrote. Reading one input reads the file of its batch.

    ``len(shards)`` is the number of inputs; ``shards[i]`` are the scores of input i, a batch of one. Iterate over
    `batches` to read each file once.

    Args:
        folder: The folder.

    Raises:
        InputError: If it holds no scores.

    Example:
        >>> shards = cpath.score_dataset(model, images.split(1), folder / "one")
        >>> len(shards), len(cpath.ScoreShards(folder / "one")[1])
        (2, 1)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._sizes = [shard["inputs"] for shard in _read(self.folder)["shards"]]
        self._read = lru_cache(maxsize=1)(self._load)

    def __len__(self) -> int:
        return sum(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        """Read the scores of one input.

        Args:
            index: Number of the input; negative ones count from the end.

        Returns:
            Its scores, a batch of one.

        Raises:
            MissingImageError: If there is no such input.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise MissingImageError(f"there is no input {index}: the folder has scores of {len(self)}.")
        for number, size in enumerate(self._sizes):
            if place < size:
                return self._read(number)[place]
            place -= size
        raise AssertionError

    def batches(self) -> Iterator[Scores]:
        """Read the scores batch by batch.

        Returns:
            Scores of each batch in turn, on the CPU.
        """
        for number in range(len(self._sizes)):
            yield self._load(number)

    def _load(self, number: int) -> Scores:
        return Scores.load(_shard(self.folder, number))

    def __repr__(self) -> str:
        return f"ScoreShards(inputs={len(self)}, files={len(self._sizes)})"


def score_dataset(
    model: nn.Module,
    loader: Iterable[Any],
    folder: str | Path,
    method: str | Method = "neuron_mct",
    target: Target = None,
    *,
    sites: Iterable[str] = DEFAULT_SITES,
    unit: str | Units = NEURONS,
    baseline: Mapping[str, Tensor] | None = None,
    max_batch: int = 64,
    device: torch.device | str | None = None,
) -> ScoreShards:
    """Score every input of a loader, a file for each batch; what was scored before is not scored again.

    A stopped call continues behind its last whole file, if it is made again with the same model, method and
    settings and a loader that gives the same batches in the same order.

    Args:
        model: As for `score`.
        loader: Gives batches of inputs, or pairs of inputs and labels, of which the inputs are taken.
        folder: Folder to write to; made if it does not exist.
        method: As for `score`.
        target: As for `score`: None, a class, or a function.
        sites: As for `score`.
        unit: As for `score`.
        baseline: As for `score`.
        max_batch: As for `score`.
        device: Device that batches are put on; None for that of the model.

    Returns:
        The scores, read when they are asked for.

    Raises:
        InputError: If the folder holds scores of another model, method or setting, or of other inputs.
        StorageError: If a file cannot be written.

    Example:
        >>> shards = cpath.score_dataset(model, [images, images.flip(3)], folder / "all")
        >>> shards
        ScoreShards(inputs=4, files=2)
        >>> shards[3].pathway(90).sparsity >= 90
        tensor([True])
    """
    folder, max_batch = Path(folder), check_count("max_batch", max_batch)
    if isinstance(target, Tensor):
        raise InputError("target must be None, a class or a function: classes (B,) belong to one batch alone.")
    method = get(method) if isinstance(method, str) else method
    made_with = _origin(model, method, target, check_sites(sites), check_units(unit), baseline)
    index = _prepared(folder, made_with)
    place = _device_of(model) if device is None else torch.device(device)
    for number, batch in enumerate(loader):
        inputs = Inputs.of(_without_labels(batch))
        found = {"inputs": len(inputs), "digest": _digest(inputs)}
        if number < len(index["shards"]) and index["shards"][number] != found:
            raise InputError(
                f"batch {number} of the loader is another than when {folder} was written: it must give the same "
                "batches in the same order (no shuffling, no random augmentation). Otherwise name another folder."
            )
        if number < len(index["shards"]) and _shard(folder, number).is_file():
            continue
        scores = score(
            model,
            inputs.to(place),
            method,
            target,
            sites=sites,
            unit=unit,
            baseline=baseline,
            max_batch=max_batch,
        )
        scores.save(_shard(folder, number))
        index["shards"][number:] = [found, *index["shards"][number + 1 :]]
        _write(folder, index)
    if not index["shards"]:
        raise InputError("the loader gave no batch.")
    return ScoreShards(folder)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"scores-{number:06d}.safetensors"


def _without_labels(batch: Any) -> Any:
    """The inputs of a batch: the first of a list or pair whose second is a tensor of whole numbers (B,)."""
    if isinstance(batch, list | tuple) and len(batch) == 2:
        labels = batch[1]
        if isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point():
            return batch[0]
    return tuple(batch) if isinstance(batch, list) else batch


def _digest(inputs: Inputs) -> str:
    hasher = hashlib.sha256()
    for tensors in inputs.on_cpu().rows():
        for tensor in tensors:
            hasher.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()[:16]


def _device_of(model: nn.Module) -> torch.device:
    first = next(iter((*model.parameters(), *model.buffers())), None)
    return torch.device("cpu") if first is None else first.device


def _origin(
    model: nn.Module,
    method: Method,
    target: Target,
    sites: Sequence[str],
    units: Units,
    baseline: Mapping[str, Tensor] | None,
) -> dict[str, str]:
    """Everything that determines scores beside the inputs, as text."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    settings = asdict(method) if is_dataclass(method) else dict(vars(method))
    of_target = f"{target.__module__}.{target.__qualname__}" if callable(target) else str(target)
    of_baseline = str(baseline)
    if isinstance(baseline, Mapping):
        values = hashlib.sha256()
        for name, tensor in sorted(baseline.items()):
            values.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        of_baseline = values.hexdigest()[:16]
    return {
        "model": hasher.hexdigest()[:16],
        "method": f"{method.name} {settings}",
        "target": of_target,
        "sites": str(list(sites)),
        "unit": str(units),
        "baseline": of_baseline,
        "version of cpath": cpath.__version__,
    }


def _prepared(folder: Path, made_with: dict[str, str]) -> dict[str, Any]:
    """Index of a folder, new or of an earlier call with the same settings."""
    if not (folder / _INDEX).exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write {folder}: {error.strerror}.") from error
        index: dict[str, Any] = {"format": _FORMAT, "made_with": made_with, "shards": []}
        _write(folder, index)
        return index
    index = _read(folder)
    other = [name for name, value in made_with.items() if index["made_with"].get(name) != value]
    if other:
        raise InputError(
            f"{folder} holds scores of another {other[0]}: {index['made_with'].get(other[0])}, not "
            f"{made_with[other[0]]}. Name another folder."
        )
    return index


def _read(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no scores that cpath.score_dataset wrote.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / _INDEX} is damaged: {error}") from error
    if index.get("format") != _FORMAT:
        raise InputError(f"{folder} has format {index.get('format')}, this cpath reads {_FORMAT}.")
    return dict(index)


def _write(folder: Path, index: Mapping[str, Any]) -> None:
    with replacing(folder / _INDEX) as partial:
        partial.write_text(json.dumps(index, indent=1), encoding="utf-8")
