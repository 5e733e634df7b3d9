"""Files of tensors with metadata: safetensors, written atomically, checked when read. Nothing is unpickled."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
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

Version = int | tuple[int, ...]
"""Format of a kind of file that can be read, or several."""


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Compute the CRC-32 of the metadata and of the tensors' names, types, shapes and bytes.

    Args:
        tensors: Tensors by name.
        metadata: Metadata that JSON can hold.

    Returns:
        8 hexadecimal digits.
    """
    kinds = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
    crc = zlib.crc32(json.dumps([metadata, kinds], sort_keys=True).encode())
    for name in sorted(tensors):
        crc = zlib.crc32(_bytes(tensors[name]), crc)
    return f"{crc:08x}"


def _bytes(tensor: Tensor) -> memoryview:
    """View the values of ``tensor`` in the order of its indices, independent of its strides and type."""
    values = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1)
    if values.stride() != (1,):  # a single number may have any stride, and counts as contiguous all the same
        values = values.clone(memory_format=torch.contiguous_format)
    return values.view(torch.uint8).numpy().data


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file that takes the place of ``path`` at the end of a ``with`` block.

    Readers see either the whole new file or the old one. The file's mode is that of any new file of the user (0666
    without the umask), independent of its writer and of the old file.

    Args:
        path: The file to replace.

    Returns:
        A context manager, which gives the path to write to.

    Raises:
        StorageError: If the file cannot be written.
    """
    # Machines that share a folder number their processes alike.
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode_of_a_new_file(partial)
        yield partial
        os.chmod(partial, mode)  # safetensors lets nobody but the user read what it writes
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"cannot write {path}: {reason}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _mode_of_a_new_file(path: Path) -> int:
    """Find the mode that a new file at ``path`` gets from the user's umask or the folder's access list.

    It is read off a file, because to ask for the umask is to change it for all threads meanwhile. No file stays.
    """
    path.unlink(missing_ok=True)  # of a process that was killed
    with open(path, "xb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    path.unlink()
    return mode


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata to a file, as `replacing` does.

    Args:
        path: The file.
        tensors: Tensors by name.
        metadata: Metadata that JSON can hold.

    Raises:
        StorageError: If the file cannot be written.
    """
    contents = _in_memory_of_their_own(tensors)
    header = {_KEY: json.dumps({**metadata, "checksum": checksum(contents, metadata)})}
    with replacing(Path(path)) as partial:
        save_file(contents, str(partial), metadata=header)


def _in_memory_of_their_own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to contiguous CPU memory of their own, unless they have it: safetensors needs that."""
    taken: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if values.untyped_storage().data_ptr() in taken:
            values = values.clone(memory_format=torch.contiguous_format)
        taken.add(values.untyped_storage().data_ptr())
        own[name] = values
    return own


def kept_tensors(
    path: Path, kind: str, version: int, make: Callable[[], object], expected: Mapping[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file, and make it first unless it is there, whole, and of the expected origin.

    Args:
        path: The file.
        kind: Its kind.
        version: Its format.
        make: Function that writes the file.
        expected: Metadata that the file must have.

    Returns:
        Tensors by name, and metadata.
    """
    if (found := whole_tensors(path, kind, version, expected)) is not None:
        return found
    make()
    return read_tensors(path, kind, version)


def whole_tensors(
    path: Path, kind: str, version: int, expected: Mapping[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read a file if it is there, whole, and of the expected origin. Otherwise log why it must be made again.

    Args:
        path: The file.
        kind: Its kind.
        version: Its format.
        expected: Metadata that the file must have.

    Returns:
        Tensors by name, and metadata; None if the file must be made.
    """
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


def open_tensors(path: str | Path, kind: str, version: Version) -> Any:
    """Open a file to read parts of its tensors. Its checksum is not checked.

    Args:
        path: The file.
        kind: Its kind.
        version: Its format.

    Returns:
        The open file, whose ``get_slice`` reads parts.

    Raises:
        InputError: If the file is missing, damaged, of another kind or of another format.
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


def read_tensors(path: str | Path, kind: str, version: Version) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file and check its checksum.

    Args:
        path: The file.
        kind: Its kind.
        version: Its format, or several.

    Returns:
        Tensors by name, and metadata.

    Raises:
        InputError: If the file is missing, damaged, of another kind or of another format.
    """
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


def _metadata(file: Any, path: Path, kind: str, version: Version) -> dict[str, Any]:
    header = (file.metadata() or {}).get(_KEY)
    metadata = json.loads(header) if header is not None else {}
    if not isinstance(metadata, dict) or metadata.get("kind") != kind:
        raise InputError(f"{path} is not a cpath {kind} file.")
    known = version if isinstance(version, tuple) else (version,)
    if metadata.get("format") not in known:
        read = " and ".join(map(str, known))
        raise InputError(f"{path} has {kind} format {metadata.get('format')}, this cpath reads {read}.")
    return metadata
