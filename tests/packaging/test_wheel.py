"""Wheel and source distribution: complete, and enough to run experiments in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pandas as pd
import pytest

import cpath

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("cpath", "experiments", "hydra_plugins")
# An experiment of seconds.
TINY = [
    *("experiment=path_analysis", "experiment.images=4", "experiment.by_site=false", "sparsity=90"),
    *("dataset=digits", "dataset.size=16", "recipe.epochs=1", "model.width=4"),
]


def _run(*command: str | Path, cwd: Path) -> str:
    """Standard output of ``command``, which must succeed, and sees nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _files(folder: Path) -> set[str]:
    """Names of all files in ``folder`` but those that setuptools writes beside the sources when it builds."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if ".egg-info/" not in name}


def _build(kind: str, source: Path, target: Path) -> Path:
    """Builds the ``kind``, sdist or wheel, of ``source`` with the setuptools at hand: nothing is downloaded."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    _run(sys.executable, "-c", code, target, cwd=source)
    (built,) = (path for path in target.iterdir() if path.suffix == {"sdist": ".gz", "wheel": ".whl"}[kind])
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without what is not part of the project."""
    foreign = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "outputs", "build", "dist", "wandb")
    return Path(shutil.copytree(CHECKOUT, tmp_path_factory.mktemp("source") / "checkout", ignore=foreign))


@pytest.fixture(scope="module")
def unpacked(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(_build("sdist", source, folder)) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"critical_pathways-{cpath.__version__}"


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution."""
    return _build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def _environment(folder: Path, *requirement: str | Path) -> Path:
    """Folder of the commands of an environment with ``requirement`` and the packages installed here, not cpath.

    An editable cpath is not among them: it is a line in a .pth file, and those are not read behind a .pth file.
    """
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    packages = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(packages, "installed_here.pth").write_text("\n".join(sorted(here)))
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", python)
    _run(*pip, "install", "--no-deps", "--no-index", "--no-build-isolation", *requirement, cwd=folder)
    return python.parent


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of an environment with the wheel."""
    return _environment(tmp_path_factory.mktemp("environment"), wheel)


def test_the_source_distribution_holds_all_of_the_project(source: Path, unpacked: Path) -> None:
    assert _files(unpacked) - {"PKG-INFO", "setup.cfg"} == _files(source)


def test_the_wheel_holds_the_packages_with_their_data_and_the_configuration_inside(
    source: Path, wheel: Path
) -> None:
    expected = {f"{package}/{file}" for package in PACKAGES for file in _files(source / package)}
    expected |= {f"experiments/conf/{file}" for file in _files(source / "conf")}
    with zipfile.ZipFile(wheel) as archive:
        about = f"critical_pathways-{cpath.__version__}.dist-info/"
        found = {name for name in archive.namelist() if not name.startswith(about)}
        metadata = archive.read(f"{about}METADATA").decode()
    assert found == expected
    assert {"cpath/py.typed", "experiments/py.typed"} <= found
    assert "Author: The cpath developers" in metadata
    assert "Project-URL: Paper, https://arxiv.org/abs/2103.16886" in metadata


def test_installed_it_runs_a_job_and_a_sweep_in_an_empty_folder(commands: Path, tmp_path: Path) -> None:
    code = "import experiments, importlib.metadata as m; print(experiments.CONF, m.version('critical-pathways'))"
    conf, version = _run(commands / "python", "-c", code, cwd=tmp_path).split()
    assert Path(conf).parent.name == "experiments"
    assert Path(conf).is_relative_to(commands.parent)
    assert version == cpath.__version__

    assert "path_analysis" in _run(commands / "cpath", "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []

    _run(commands / "cpath", *TINY, "method=random", cwd=tmp_path)
    runs = tmp_path / "outputs" / "runs" / "path_analysis"
    (table,) = runs.glob("*/results.csv")
    methods = set(pd.read_csv(table).method)
    assert "random" in methods
    assert "active" not in methods
    assert list((table.parent / "figures").glob("*.svg"))

    _run(commands / "cpath", "-m", *TINY, "method=random,active", cwd=tmp_path)
    assert len(list(runs.glob("*/results.csv"))) == 2
    (sweep,) = (tmp_path / "outputs" / "sweeps").glob("*/results.csv")
    assert {"random", "active"} <= set(pd.read_csv(sweep).method)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


def test_an_editable_installation_reads_the_configuration_of_the_checkout(source: Path, tmp_path: Path) -> None:
    commands = _environment(tmp_path / "environment", "--editable", source)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = "import experiments, hydra_plugins.cpath_sweeps as p; print(experiments.CONF, p.__file__)"
    conf, plugin = map(Path, _run(commands / "python", "-c", code, cwd=empty).split())
    assert conf == source / "conf"
    assert plugin == source / "hydra_plugins" / "cpath_sweeps.py"
    assert "path_analysis" in _run(commands / "cpath", "--help", cwd=empty)
