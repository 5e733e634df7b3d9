"""`python -m experiments.gpu OUT`: everything that wants a GPU, as one prepared run that is bounded in time.

Its parts run one after the other, each as a command of its own with a limit. What a part does not finish in its
time the next run takes up: the parts are tests and jobs, and jobs resume.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from cpath.errors import InputError
from experiments.engine.cache import write_json
from experiments.engine.command import command
from experiments.engine.terminal import print_table

RECORD = "parts.json"
"""File that tells how each part of the last run ended."""
ARCHIVE = "cifar-10-python.tar.gz"

FINISHED, STOPPED, FAILED = "finished", "stopped at its limit", "failed"

_MAPS = ("neuron_mct", "neuron_intgrad", "gradients", "input_mct", "input_intgrad", "gbp", "gradcam", "random")
_FAST = ("trainer.precision=bf16-mixed", "trainer.channels_last=true", "experiment.seeds=[0]")
_GRACE = 20.0  # seconds that an interrupted part has to write what it holds


@dataclass(frozen=True)
class Part:
    """One part of the run.

    Args:
        name: what the record and its log file call it.
        share: of the time, if all parts run; what earlier parts leave goes to those behind them.
        words: the command, without the interpreter.
    """

    name: str
    share: float
    words: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """End of a part.

    Args:
        name: of the part.
        state: `FINISHED`, `STOPPED` or `FAILED`.
        seconds: that it took.
        command: that ran.
        log: file of its output.
    """

    name: str
    state: str
    seconds: float
    command: str
    log: str


def parts(
    out: Path, *, cifar10: Path | None = None, imagenet: Path | None = None, dry_run: bool = False
) -> list[Part]:
    """List the parts of the run, in their order.

    Args:
        out: folder of the results.
        cifar10: archive of CIFAR-10; without it there is no ROAR table.
        imagenet: folder of ImageNet's validation images by class; without it VGG-16 looks at digits, enlarged.
        dry_run: the same parts on the CPU, with sizes that take seconds.

    Returns:
        The parts.
    """
    return [
        Part("tests", 0.2, _tests(dry_run)),
        Part("benchmark", 0.2, _benchmark(out, dry_run)),
        Part("vgg16", 0.15, _vgg16(out, imagenet, dry_run)),
        *(
            Part(f"roar, {model}", share, _roar(out, model, cifar10, dry_run))
            for model, share in (("resnet8_narrow", 0.15), ("resnet8", 0.3))
            if cifar10 is not None or dry_run
        ),
    ]


def _tests(dry_run: bool) -> tuple[str, ...]:
    few = ("-k", "thresholds or files or classes") if dry_run else ()
    return ("-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests/gpu", *few)


def _job(out: Path, dry_run: bool, *overrides: str) -> tuple[str, ...]:
    return ("-m", "experiments", f"outputs={out}", f"device={'cpu' if dry_run else 'cuda'}", *overrides)


def _benchmark(out: Path, dry_run: bool) -> tuple[str, ...]:
    small = ("experiment.cases=[threshold,active]", "experiment.models=[squeezenet1_0]", "experiment.size=32")
    tiny = (*small, "experiment.batch=1", "experiment.repeats=1", "experiment.threshold=[2,1000]")
    return _job(out, dry_run, "experiment=benchmark", *(tiny if dry_run else ("experiment.batch=32",)))


def _vgg16(out: Path, imagenet: Path | None, dry_run: bool) -> tuple[str, ...]:
    shared = ("experiment=path_analysis", "sparsity=[80,90,99]")
    if dry_run:  # a small network stands for VGG-16, which two cores would train for an hour
        tiny = (
            "recipe.epochs=1",
            "dataset.size=16",
            "model.width=2",
            "experiment.images=2",
            "experiment.by_site=false",
        )
        return _job(out, dry_run, *shared, *tiny, "method=[neuron_mct,random]")
    if imagenet is not None:
        data: tuple[str, ...] = ("dataset=imagenet", f"dataset.root={imagenet}")
    else:
        data = (
            "dataset=digits",
            "dataset.size=224",
            "dataset.channels=3",
            "recipe.epochs=2",
            "trainer.memory_gb=2",
        )
    few = ("method=[neuron_mct,neuron_intgrad,greedy,active,random]", "experiment.images=100")
    return _job(out, dry_run, *shared, "model=vgg16", *data, *few)


def _roar(out: Path, model: str, cifar10: Path | None, dry_run: bool) -> tuple[str, ...]:
    shared = ("experiment=roar_table", f"model={model}")
    if dry_run:
        tiny = ("recipe.epochs=1", "dataset.size=16", "model.width=2", "percent=[50]", "experiment.seeds=[0]")
        return _job(out, dry_run, *shared, *tiny, "attribution=[gradients,random]", "experiment.side_by_side=1")
    root = out / "data" if cifar10 is not None else "data"
    return _job(
        out, dry_run, *shared, "dataset=cifar10", f"dataset.root={root}", f"attribution=[{','.join(_MAPS)}]", *_FAST
    )


def run_parts(todo: Sequence[Part], out: Path, seconds: float, *, dry_run: bool = False) -> list[Outcome]:
    """Run the parts one after the other, each within its share of the time that is left.

    Args:
        todo: the parts.
        out: folder of their logs and of the record, which is written after each of them.
        seconds: for all of them together.
        dry_run: tell the tests to run on the CPU.

    Returns:
        How each part ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    for place, part in enumerate(todo):
        left = max(0.0, end - time.monotonic())
        limit = left * part.share / sum(one.share for one in todo[place:])
        print(f"{part.name}: at most {limit:.0f} s", flush=True)
        outcomes.append(_run(part, out, limit, dry_run))
        print(f"{part.name}: {outcomes[-1].state} after {outcomes[-1].seconds:.0f} s", flush=True)
        write_json(out / RECORD, [asdict(outcome) for outcome in outcomes])
    return outcomes


def _run(part: Part, out: Path, limit: float, dry_run: bool) -> Outcome:
    words = [sys.executable, *part.words]
    log = out / f"{part.name.replace(', ', '-')}.log"
    environment = {**os.environ, **({"CPATH_GPU": "cpu"} if dry_run else {})}
    started = time.monotonic()
    # Where this process was told to ignore interrupts, as in the background of a script, its parts would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("w") as output:
        process = subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        state = _ended(process, limit)
    return Outcome(
        part.name, state, round(time.monotonic() - started, 1), " ".join(["python", *part.words]), log.name
    )


def _ended(process: subprocess.Popen[bytes], limit: float) -> str:
    """Wait for a part, and interrupt it at its limit, as Ctrl-C does, with all processes that it has started."""
    for send, patience in ((None, limit), (signal.SIGINT, _GRACE), (signal.SIGKILL, None)):
        if send is not None:
            os.killpg(process.pid, send)
        try:
            status = process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        if send is not None:
            return STOPPED
        return FINISHED if status == 0 else FAILED
    return STOPPED


def gpu(
    out: Annotated[
        Path, typer.Argument(help="Folder of the results. The same folder again goes on where it stopped.")
    ],
    minutes: Annotated[float, typer.Option(min=0.1, help="Limit of the whole run.")] = 10,
    cifar10: Annotated[
        Path | None, typer.Option(help=f"{ARCHIVE}, from CIFAR-10's home page: without it there is no ROAR table.")
    ] = None,
    imagenet: Annotated[
        Path | None, typer.Option(help="Validation images by class, for VGG-16: without it, enlarged digits.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same parts on the CPU, with tiny sizes.")] = False,
) -> int:
    """Run what wants a GPU: tests, benchmark, path analysis of VGG-16, and the ROAR tables of CIFAR-10.

    Each part has a share of the minutes, and writes its output into a file of the folder.
    """
    if not dry_run and not torch.cuda.is_available():
        raise InputError("there is no CUDA device: --dry-run tries the same parts on the CPU, with tiny sizes.")
    for given, what in ((cifar10, "--cifar10"), (imagenet, "--imagenet")):
        if given is not None and not given.exists():
            raise InputError(f"{what}: there is no {given}.")
    if cifar10 is not None:
        (out / "data").mkdir(parents=True, exist_ok=True)
        if not (out / "data" / ARCHIVE).exists():  # under the name that torchvision looks for
            shutil.copyfile(cifar10, out / "data" / ARCHIVE)
    elif not dry_run:
        print("no --cifar10: the ROAR tables are left out")
    todo = parts(out, cifar10=cifar10, imagenet=imagenet, dry_run=dry_run)
    outcomes = run_parts(todo, out, 60 * minutes, dry_run=dry_run)
    rows = [(one.name, one.state, f"{one.seconds:.0f} s", str(out / one.log)) for one in outcomes]
    print_table(("part", "state", "time", "output"), rows, right=("time",))
    return int(any(one.state == FAILED for one in outcomes))


main = command(gpu)

if __name__ == "__main__":
    sys.exit(main(None))
