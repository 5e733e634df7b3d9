"""Speed and memory: ratios within one run, of medians over rounds in which everything runs once."""

from __future__ import annotations

import gc
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import psutil
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from tqdm.auto import tqdm

import cpath
from cpath.models import torchvision_model
from cpath.plots import benchmark_figures
from cpath.threshold import keep_above
from experiments.framework.devices import device_of
from experiments.framework.job import Job, run_job
from experiments.framework.results import Row

_SPARSITY = 90.0
# Ratios that cpath sets itself as limits: (what, model) → at most.
_LIMITS = {
    ("neuron_mct", "squeezenet1_0"): 1.8,
    ("neuron_mct", "vgg16"): 1.3,
    ("neuron_intgrad", "squeezenet1_0"): 0.5,
    ("greedy", "squeezenet1_0"): 1.15,
    ("greedy", "vgg16"): 1.15,
    ("dgr", "squeezenet1_0"): 1.6,
    ("dgr", "vgg16"): 1.3,
    ("attributions", "squeezenet1_0"): 1.2,
    ("threshold", "scores"): 4.0,
}


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, benchmark_figures)


@dataclass
class _Case:
    """One thing to time, against what it must contain or what others need for it."""

    what: str
    model: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    versus: str


def _compute(job: Job) -> list[Row]:
    device = device_of(job.cfg)
    rows: list[Row] = []
    for case in _cases(job.cfg, device):
        if case.what not in job.cfg.experiment.cases:
            continue
        rows += _measure(case, job.cfg.experiment.repeats, device)
    return rows


def _cases(cfg: DictConfig, device: torch.device) -> Iterator[_Case]:
    settings = cfg.experiment
    generator = torch.Generator().manual_seed(cfg.seed)
    images, neurons = settings.threshold
    # Half of the neurons dead, the rest spread over magnitudes, as contributions are.
    scores = torch.randn(images, neurons, generator=generator) * torch.randn(images, neurons, generator=generator)
    scores = torch.where(torch.rand(images, neurons, generator=generator) < 0.5, 0.0, scores.abs()).to(device)
    yield _Case(
        "threshold",
        "scores",
        partial(keep_above, scores, _SPARSITY),
        partial(torch.gt, scores, 0.5),
        "one comparison",
    )
    for name in settings.models:
        torch.manual_seed(cfg.seed)
        model = torchvision_model(name, 1000).eval().to(device)
        batch = torch.randn(settings.batch, 3, settings.size, settings.size, generator=generator).to(device)
        yield _Case(
            "neuron_mct",
            name,
            partial(cpath.find_pathway, model, batch, "neuron_mct", _SPARSITY),
            partial(_forward_backward, model, batch),
            "forward and input-only backward",
        )
        rounds, iterations = settings.greedy_rounds, settings.dgr_iterations
        yield _Case(
            "greedy",
            name,
            partial(cpath.find_pathway, model, batch, cpath.methods.Greedy(rounds=rounds), _SPARSITY),
            partial(_repeated, rounds, cpath.find_pathway, model, batch, "neuron_mct", _SPARSITY),
            f"neuron_mct, {rounds} times",
        )
        yield _Case(
            "dgr",
            name,
            partial(cpath.score, model, batch, cpath.methods.DGR(iterations=iterations, retries=0)),
            partial(_repeated, iterations, _gated_forward_backward, model, batch),
            f"gated forward and gate-only backward, {iterations} times",
        )
        if name in settings.captum:
            yield _Case(
                "attributions",
                name,
                partial(_our_attributions, model, batch),
                partial(_captum_attributions, model, batch),
                "Captum's five and two pathway gradients",
            )
            captum = partial(_captum_layers, model, batch, settings.nodes)
            # Captum gives the scores alone; ours also come with their residual.
            for what, residual in (("neuron_intgrad", False), ("neuron_intgrad with residual", True)):
                method = cpath.methods.NeuronIntGrad(nodes=settings.nodes, residual=residual)
                yield _Case(
                    what,
                    name,
                    partial(cpath.score, model, batch, method),
                    captum,
                    f"Captum LayerIntegratedGradients, {settings.nodes} steps",
                )


def _forward_backward(model: nn.Module, batch: Tensor) -> Tensor:
    source = batch.clone().requires_grad_()
    response = model(source).max(1).values.sum()
    return torch.autograd.grad(response, source)[0]


def _repeated(times: int, work: Callable[..., object], *arguments: object) -> None:
    for _ in range(times):
        work(*arguments)


def _gated_forward_backward(model: nn.Module, batch: Tensor) -> None:
    """One bare iteration of routing: a gate on every neuron, the distillation loss, the gates' gradients."""
    gates: list[Tensor] = []

    def gate(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        gates.append(torch.ones_like(output, requires_grad=True))
        return output * gates[-1]

    handles = [module.register_forward_hook(gate) for module in model.modules() if isinstance(module, nn.ReLU)]
    try:
        log_q = model(batch).log_softmax(1)
    finally:
        for handle in handles:
            handle.remove()
    torch.autograd.grad(-(log_q.detach().exp() * log_q).sum(), gates)


_FROM_CAPTUM = ("gradients", "input_mct", "input_intgrad", "gbp", "gradcam")
_PATHWAY_GRADIENTS = ("neuron_mct", "neuron_intgrad")


def _our_attributions(model: nn.Module, batch: Tensor) -> None:
    for name in (*_FROM_CAPTUM, *_PATHWAY_GRADIENTS):
        cpath.attribute(model, batch, name)


def _captum_attributions(model: nn.Module, batch: Tensor) -> None:
    """The five that Captum has, called as its documentation does, and our two pathway gradients."""
    from captum import attr

    with torch.no_grad():
        target = model(batch).argmax(1)
    last = [module for module in model.modules() if isinstance(module, nn.ReLU)][-1]
    source = batch.clone().requires_grad_()
    attr.Saliency(model).attribute(source, target=target, abs=False)
    attr.InputXGradient(model).attribute(source, target=target)
    attr.IntegratedGradients(model).attribute(batch, target=target, n_steps=50, internal_batch_size=len(batch))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it sets hooks
        attr.GuidedBackprop(model).attribute(source, target=target)
    attr.LayerGradCam(model, last).attribute(batch, target=target, relu_attributions=True)
    for name in _PATHWAY_GRADIENTS:
        cpath.attribute(model, batch, name)


def _captum_layers(model: nn.Module, batch: Tensor, steps: int) -> None:
    """The same scores by Captum, module by module; an image at a time, which is its fastest way on a CPU."""
    from captum.attr import LayerIntegratedGradients

    layers = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    with torch.no_grad():
        target = model(batch).argmax(1)
    for start in range(len(batch)) if batch.device.type == "cpu" else [slice(None)]:
        where = slice(start, start + 1) if isinstance(start, int) else start
        for layer in layers:
            attributor = LayerIntegratedGradients(model, layer)
            attributor.attribute(batch[where], target=target[where], n_steps=steps, method="riemann_middle")


def _measure(case: _Case, repeats: int, device: torch.device) -> list[Row]:
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    processor: dict[str, list[float]] = {"ours": [], "theirs": []}
    memory: dict[str, float] = {}
    sides = {"ours": case.ours, "theirs": case.theirs}
    with tqdm(total=2 * (repeats + 1), desc=f"{case.what} {case.model}", unit="run", disable=None) as bar:
        for turn in range(repeats + 1):
            for side, work in sides.items():
                gc.collect()
                with _peak_memory(device) as peak:
                    begin, begin_processor = time.perf_counter(), time.process_time()
                    work()
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    elapsed, spent = time.perf_counter() - begin, time.process_time() - begin_processor
                if turn:  # the first round warms up
                    times[side].append(elapsed)
                    processor[side].append(spent)
                memory[side] = peak[0]
                bar.update()
    ours, theirs = statistics.median(times["ours"]), statistics.median(times["theirs"])
    at: dict[str, Any] = {"x_name": "model", "x": case.model, "n": repeats}
    rows = [
        _ratio(case.what, "ratio", times, at),
        Row(case.what, "seconds", ours, ci_low=min(times["ours"]), ci_high=max(times["ours"]), **at),
        Row(case.what, "peak_megabytes", memory["ours"], **at),
        Row(case.versus, "seconds", theirs, ci_low=min(times["theirs"]), ci_high=max(times["theirs"]), **at),
        Row(case.versus, "peak_megabytes", memory["theirs"], **at),
    ]
    if device.type == "cpu":  # holds its ground where other processes want the cores too
        rows.insert(1, _ratio(case.what, "processor_ratio", processor, at))
    if (case.what, case.model) in _LIMITS:
        rows.append(Row(case.what, "limit", _LIMITS[case.what, case.model], **at))
    return rows


def _ratio(what: str, metric: str, seconds: dict[str, list[float]], at: dict[str, Any]) -> Row:
    """Ratio of the medians, between the least and the largest ratio of a round."""
    rounds = [ours / theirs for ours, theirs in zip(seconds["ours"], seconds["theirs"], strict=True)]
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["theirs"])
    return Row(what, metric, ratio, ci_low=min(rounds), ci_high=max(rounds), **at)


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Megabytes that the work held at most, beyond what was there before."""
    peak = [0.0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak[0] = (torch.cuda.max_memory_allocated(device) - before) / 1e6
        return
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    highest = before

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.005):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak[0] = (highest - before) / 1e6
