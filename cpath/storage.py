"""Files of tensors with metadata: safetensors, written atomically, checked when read. Nothing unpickles."""

from __future__ import annotations

import json
import logging
import os
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cpath.errors import InputError, StorageError

_LOG = logging.getLogger(__name__)
_KEY = "cpath"


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """CRC-32 over ``metadata`` and the names, types, shapes and bytes of ``tensors``."""
    kinds = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
    crc = zlib.crc32(json.dumps([metadata, kinds], sort_keys=True).encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].cpu().reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of ``path`` at the end: a reader sees all of it, or what was there.

    Raises `StorageError` where it cannot be written.
    """
    # Machines that share a folder number their processes alike.
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"cannot write {path}: {reason}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes ``tensors`` and JSON ``metadata`` to ``path``, as `replacing` does."""
    contents = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    header = {_KEY: json.dumps({**metadata, "checksum": checksum(contents, metadata)})}
    with replacing(Path(path)) as partial:
        save_file(contents, str(partial), metadata=header)


def kept_tensors(
    path: Path, kind: str, version: int, make: Callable[[], object], expected: Mapping[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `read_tensors` gives, of a file that ``make()`` writes unless it is there and whole.

    It is made again, too, unless all that is ``expected`` stands in its metadata.
    """
    if (found := whole_tensors(path, kind, version, expected)) is not None:
        return found
    make()
    return read_tensors(path, kind, version)


def whole_tensors(
    path: Path, kind: str, version: int, expected: Mapping[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `read_tensors` gives; None where the file has to be made, or, as is then said, made again."""
    if not path.exists():
        return None
    try:
        tensors, metadata = read_tensors(path, kind, version)
    except InputError:
        _LOG.warning("%s is damaged, or of another version, and is made again", path)
        return None
    other = [name for name, value in (expected or {}).items() if metadata.get(name) != value]
    if other:
        _LOG.warning("%s was made of other %s, and is made again", path, ", ".join(other))
        return None
    return tensors, metadata


def open_tensors(path: str | Path, kind: str, version: int) -> Any:
    """A file of ``kind``, opened to read parts of its tensors (``get_slice``); its checksum is not checked.

    Raises `InputError` for any other, newer or damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such {kind} file: {path}")
    try:
        file = safe_open(str(path), framework="pt")
        _metadata(file, path, kind, version)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} is damaged or not a safetensors file: {error}") from error
    return file


def read_tensors(path: str | Path, kind: str, version: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file of ``kind``; raises `InputError` for any other, newer or damaged file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such {kind} file: {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = _metadata(file, path, kind, version)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} is damaged or not a safetensors file: {error}") from error
    if metadata.pop("checksum", None) != checksum(tensors, metadata):
        raise InputError(f"{path} is damaged: its checksum does not fit its content. Make it again.")
    return tensors, metadata


def _metadata(file: Any, path: Path, kind: str, version: int) -> dict[str, Any]:
    header = (file.metadata() or {}).get(_KEY)
    metadata = json.loads(header) if header is not None else {}
    if not isinstance(metadata, dict) or metadata.get("kind") != kind:
        raise InputError(f"{path} is not a cpath {kind} file.")
    if metadata.get("format") != version:
        raise InputError(f"{path} has {kind} format {metadata.get('format')}, this cpath reads {version}.")
    return metadata
