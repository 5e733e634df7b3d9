"""Provenance: one record for everything that the cache holds, of what it was made from, how, and when."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

import cpath

Status = Literal["running", "finished", "failed", "stopped"]

_PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "pytorch-lightning", "captum", "scipy")
MANIFEST = "manifest.json"


@dataclass(kw_only=True)
class Provenance:
    """Record of one cache entry, kept as ``manifest.json`` in its folder.

    An entry is complete when its status is ``finished`` and the files that it lists are as they were then.
    """

    kind: str
    """Kind of entry: the folder that it is in, such as ``models``."""
    made_of: dict[str, Any]
    """Everything that determines the content; its hash is in the name of the folder."""
    status: Status = "running"
    """State of the work: ``running``, ``finished``, ``failed`` or ``stopped``."""
    error: str | None = None
    """Message of the exception that made it fail."""
    traceback: str | None = None
    """Traceback of that exception."""
    started: str = field(default_factory=lambda: now())
    """Time at which the work began, in UTC."""
    finished: str | None = None
    """Time at which it ended, in UTC."""
    begun: int = 1
    """Number of times that work on it began: several where it was interrupted, failed, was damaged or made anew."""
    seconds: float | None = None
    """Duration of the last piece of work."""
    process: int = field(default_factory=os.getpid)
    """Number of the process."""
    host: str = field(default_factory=socket.gethostname)
    """Name of the machine."""
    files: dict[str, str] = field(default_factory=dict)
    """Checksum of each file that must be there."""
    git: str | None = None
    """Revision of the code."""
    versions: dict[str, str | None] = field(default_factory=dict)
    """Version of each package that the results depend on."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Further facts, such as the images of a job and its device."""

    def as_json(self) -> dict[str, Any]:
        """Content of the manifest, without what is not known yet.

        Returns:
            Fields by name; the notes stand beside the other fields.
        """
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        notes = fields.pop("notes")
        return {**fields, **{name: value for name, value in notes.items() if name not in fields}}

    def describe_code(self) -> None:
        """Note the revision and the versions of the code that runs."""
        self.git, self.versions = git_revision(), versions()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the record of an entry.

    Args:
        folder: folder of the entry.

    Returns:
        Content of its manifest; empty where there is none that can be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def now() -> str:
    """Current time in UTC, to the second.

    Returns:
        The time in ISO 8601.
    """
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def git_revision() -> str | None:
    """Revision of the code.

    Returns:
        Abbreviated hash, with ``-dirty`` when the code was changed since; None outside a checkout.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists():  # installed, perhaps inside a repository of the user's
        return None
    try:
        found = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


@cache
def versions() -> dict[str, str | None]:
    """Versions of Python, cpath and the packages that the results depend on.

    Returns:
        Version by package; None for one that is absent.
    """
    return {
        "cpath": cpath.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def command_line() -> str:
    """Tell with which command this process was started, quoted so that it can be pasted into a shell.

    Returns:
        The command: ``python -m experiments``, or the program that runs jobs otherwise, with its arguments.
    """
    program = Path(sys.argv[0])
    ours = program.name == "cpath" or program.parts[-2:] == ("experiments", "__main__.py")
    return shlex.join([*(("python", "-m", "experiments") if ours else (program.name,)), *sys.argv[1:]])


def device_name(device: torch.device) -> str:
    """Name of the hardware behind a device.

    Args:
        device: of torch.

    Returns:
        Name of the GPU, or of the processor with its number of cores.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} cores)" if names else platform.machine()
