"""Path decoding (paper, section 3): the images that pathways respond to most, and for whom they speak."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, ClassVar, NamedTuple

import pandas as pd
import torch
from hydra.utils import instantiate
from pydantic import AfterValidator, BeforeValidator
from torch import Tensor, nn
from tqdm.auto import tqdm

import cpath
from cpath.attribution.response import ResponseProbe
from cpath.decoding import PARAMETRISATIONS, Channel, Logit, Objective
from cpath.errors import InputError, unknown_name
from cpath.response import Response, logits_of
from cpath.storage import read_tensors, write_tensors
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.network import check_site
from experiments.engine.scoring import Scoring, Search, plan_searches
from experiments.engine.settings import Settings
from experiments.engine.table import Measure, PseudoMethod, Row
from experiments.figures.findings import decoding_findings
from experiments.figures.path_decoding import Decoded, Network, Picture, decoding_figures, decoding_pictures
from experiments.metrics import pick

_KIND, _FORMAT, _FILE = "decodings", 2, "pictures.safetensors"
_ORIGINAL, _ACTIVE, _INPUT = PseudoMethod.ORIGINAL.value, "active", PseudoMethod.INPUT.value


Responses = Mapping[Network, tuple[Tensor, Tensor]]
"""(1 + P,) logit and probability of the class by network: for the input image, then for each network's picture."""


def _known_parametrisation(name: str) -> str:
    if name not in PARAMETRISATIONS:
        raise unknown_name("parametrisation", name, PARAMETRISATIONS)
    return name


def _with_target(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node.get("_target_"), str):
        raise ValueError("must name a function or class under _target_")
    return node


_STANDARD = "cpath.decoding.standard_transforms"


def _spelt_out(value: Any) -> Any:
    return [{"_target_": _STANDARD}] if value == "standard" else value


Transforms = Annotated[list[Annotated[dict[str, Any], AfterValidator(_with_target)]], BeforeValidator(_spelt_out)]
"""Functions of the pixels by their ``_target_``; ``standard``: Lucent's default ones."""


class Neurons(Settings):
    """Settings of the pictures of top neurons: ``experiment.neurons.…``."""

    parametrisation: Annotated[fields.Text, AfterValidator(_known_parametrisation)] | None
    """Basis of the picture; None for that of the pathways' pictures."""
    transforms: Transforms | None
    """Transforms of the picture; None for those of the pathways' pictures."""


class _Look(NamedTuple):
    """Basis and transforms of a picture."""

    parametrisation: str
    transforms: Transforms


class PathDecoding(Experiment):
    """Makes and measures the image that maximises the response of each restricted network, with Lucent."""

    title: ClassVar[str] = "Path decoding: images that the pathways respond to"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("dead", "probability_own", "probability_original", "probability_others"),
        *("response", "probability", "top_channel"),
    )
    removed: ClassVar[Mapping[str, str]] = {
        "batch": "images are decoded one at a time; experiment.together and experiment.max_batch bound the memory"
    }

    sparsity: fields.Sparsities
    images: fields.Images
    shown: fields.Count
    steps: fields.Count
    learning_rate: fields.Positive
    tries: fields.Count
    parametrisation: Annotated[fields.Text, AfterValidator(_known_parametrisation)]
    transforms: Transforms
    neurons: Neurons
    size: fields.Count | None
    together: fields.MaxBatch
    site: fields.Text | None
    max_batch: fields.MaxBatch
    keep_scores_gb: fields.Gigabytes

    def check(self, job: Job) -> None:
        """Refuse transforms that cannot be made, and a site that the network does not have.

        Raises:
            InputError: if a transform cannot be made, or if Lucent's are asked for without a size to resize from.
            SiteError: if there is no such site, or no site's output has height and width.
        """
        self._check_looks()
        check_site(self.site, job.untrained, job.data, job.config)

    def _check_looks(self) -> None:
        for look in self._looks():
            if self.size is None and any(node["_target_"] == _STANDARD for node in look.transforms):
                raise InputError(
                    "experiment.size: Lucent's standard transforms change the size of a picture; say from which "
                    "one to resize, such as experiment.size=128."
                )
            _made(look.transforms)

    def _looks(self) -> tuple[_Look, _Look]:
        """Looks of the pictures of pathways, and of those of top neurons."""
        pathways = _Look(self.parametrisation, self.transforms)
        asked = self.neurons
        return pathways, _Look(
            pathways.parametrisation if asked.parametrisation is None else asked.parametrisation,
            pathways.transforms if asked.transforms is None else asked.transforms,
        )

    def run(self, job: Job) -> Iterable[Row]:
        """Make the pictures of one image after the other, and measure them in every network."""
        images = job.sample(self.images)
        methods = dict(job.methods)
        methods.setdefault(_ACTIVE, cpath.methods.get(_ACTIVE))
        searches = plan_searches(methods, self.sparsity)
        scoring = Scoring.planned(job, images, searches, max_batch=self.max_batch, keep_gb=self.keep_scores_gb)
        found, top = PerImage(), list[Row]()
        decoded: list[Decoded] = []
        for image in job.batches(images, 1, "decoding"):
            with job.part(image, "pictures", *methods.values()) as part:
                if part.missing:
                    write_measures(part.folder, self._decode(job, image, searches, scoring, part.folder / _FILE))
            found.add(image, read_measures(part.folder))
            tensors, about = read_tensors(part.folder / _FILE, _KIND, _FORMAT)
            (name,) = image.ids
            if len(decoded) < self.shown:
                decoded.append(_shown(name, tensors, about))
            top += [
                Row(method, "top_channel", neuron["channel"], "image", name)
                for method, neuron in about["top"].items()
            ]
        found.write(job.folder)
        job.drawings += decoding_pictures(decoded)
        return [*found.means(), *top]

    def _decode(
        self, job: Job, image: Batch, searches: Sequence[Search], scoring: Scoring, file: Path
    ) -> dict[Measure, Tensor]:
        """Make the pictures of one image, write them into ``file``, and measure them in every network."""
        networks: dict[Network, cpath.Pathway | None] = {Network(_ORIGINAL, None): None}
        top: dict[str, dict[str, Any]] = {}
        sites = self._sites(job, image)
        for search in searches:
            scores = scoring.scores(image, search)
            for sparsity, pathway in search.pathways(scores):
                networks[Network(search.name, None if search.name == _ACTIVE else sparsity)] = pathway
            if search.method.graded and search.name not in top:
                top |= _top_neuron(search.name, scores, sites)
            assert scores.target is not None  # of classes
            target = int(scores.target)  # the class that the network predicts, for every method
        channels = list(dict.fromkeys((neuron["site"], neuron["channel"]) for neuron in top.values()))
        made = self._render(job, list(networks.values()), target, channels)
        pictures, neurons = made[: len(networks)], made[len(networks) :]
        inputs = torch.cat([image.images, job.data.normalisation.apply(pictures.to(image.images))])
        responses = {network: _response(job.model, inputs, target, path) for network, path in networks.items()}
        probability = {network: of_class for network, (_, of_class) in responses.items()}
        original = probability[Network(_ORIGINAL, None)]
        about = {
            "kind": _KIND,
            "format": _FORMAT,
            "class": job.data.classes[target],
            "true": job.data.classes[int(image.labels[0])],
            "networks": list(networks),
            "own": [float(probability[network][1 + row]) for row, network in enumerate(networks)],
            "original": [float(value) for value in original[1:]],
            "input": float(original[0]),
            "channels": channels,
            "top": top,
        }
        tensors = {"input": job.data.normalisation.invert(image.images), "decoded": pictures}
        write_tensors(file, tensors | ({"neurons": neurons} if channels else {}), about)
        measures: dict[Measure, Tensor] = {}
        for sparsity in self.sparsity:
            measures |= _measures(sparsity, responses)
        return measures

    def _sites(self, job: Job, image: Batch) -> tuple[str, ...]:
        """The site of the top neurons: the last convolutional one, or several that are concatenated."""
        with cpath.sites.evaluating(job.model):
            probe = ResponseProbe(job.model, image.images, sites=job.config.sites)
            return probe.spatial_sites(self.site)

    def _render(
        self, job: Job, pathways: list[cpath.Pathway | None], target: int, channels: Sequence[tuple[str, int]]
    ) -> Tensor:
        """Pixels of the picture for each pathway's class, then of those for channels of the original network."""
        for_pathways, for_neurons = self._looks()
        logits: list[Objective] = [Logit(target) for _ in pathways]
        neurons: list[Objective] = [Channel(site, channel) for site, channel in channels]
        unrestricted: list[cpath.Pathway | None] = [None] * len(neurons)
        with (
            warnings.catch_warnings(),
            tqdm(total=len(logits + neurons) * self.steps, desc="steps", leave=False, disable=None) as bar,
        ):
            warnings.simplefilter("ignore", RuntimeWarning)  # the table tells which picture has no gradient
            if for_pathways == for_neurons:
                return self._decoded(job, [*pathways, *unrestricted], logits + neurons, for_pathways, bar)
            made = [self._decoded(job, pathways, logits, for_pathways, bar)]
            if neurons:
                made.append(self._decoded(job, unrestricted, neurons, for_neurons, bar))
        return torch.cat(made)

    def _decoded(
        self,
        job: Job,
        pathways: list[cpath.Pathway | None],
        objectives: list[Objective],
        look: _Look,
        bar: tqdm[Any],
    ) -> Tensor:
        before = bar.n
        return cpath.decode(
            job.model,
            pathways,
            objectives,
            shape=job.data.shape,
            normalisation=job.data.normalisation,
            parametrisation=look.parametrisation,
            transforms=_made(look.transforms),
            steps=self.steps,
            learning_rate=self.learning_rate,
            tries=self.tries,
            size=self.size,
            seed=job.config.seed,
            sites=job.config.sites,
            max_batch=self.together,
            on_step=lambda done, _: bar.update(before + done - bar.n),
        ).images

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the response of every network to every network's pictures."""
        return decoding_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return decoding_findings(table)


def _made(transforms: Transforms) -> list[Any]:
    """Functions of the pixels."""
    made: list[Any] = []
    for node in transforms:
        try:
            found = instantiate(node)
        except Exception as error:  # of Hydra, or of what it calls
            raise InputError(
                f"experiment.transforms: {node['_target_']} cannot be made: {error.__cause__ or error}"
            ) from error
        made += found if isinstance(found, list) else [found]
    return made


def _top_neuron(method: str, scores: cpath.Scores, sites: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Place of the highest score at the sites, by method; empty where none is above 0."""
    best = max(sites, key=lambda site: float(scores.values[site].max()))
    values = scores.values[best][0]
    if values.max() <= 0:
        return {}
    channel, row, column = (int(i) for i in torch.unravel_index(values.argmax(), values.shape))
    return {method: {"site": best, "channel": channel, "row": row, "column": column}}


def _response(
    model: nn.Module, inputs: Tensor, target: int, pathway: cpath.Pathway | None
) -> tuple[Tensor, Tensor]:
    """(P,) logit and probability of the target; NaN for pictures that could not be made."""
    missing = inputs.isnan().flatten(1).any(1)
    with torch.no_grad(), nullcontext() if pathway is None else pathway.restrict(model):
        output = model(inputs.nan_to_num())
    logit = Response(target, len(inputs), inputs.device).of(output).double()
    probability = logits_of(output).double().softmax(1)[:, target]
    return logit.masked_fill(missing, math.nan), probability.masked_fill(missing, math.nan)


def _measures(sparsity: float, responses: Responses) -> dict[Measure, Tensor]:
    """Numbers of the input image, and of the picture made in each network, at one sparsity."""
    rows = {network: 1 + row for row, network in enumerate(responses) if network.sparsity in (None, sparsity)}
    measures: dict[Measure, Tensor] = {}
    for picture, row in [(_INPUT, 0), *((network.method, row) for network, row in rows.items())]:
        response = {network.method: float(responses[network][0][row]) for network in rows}
        probability = {network.method: float(responses[network][1][row]) for network in rows}
        numbers: dict[str, float] = {}
        if picture != _INPUT:
            others = [n.method for n in rows if n.sparsity is not None and n.method != picture]
            numbers["dead"] = 100.0 * math.isnan(probability[_ORIGINAL])
            numbers["probability_own"] = probability[picture]
            numbers["probability_others"] = fmean(probability[name] for name in others) if others else math.nan
        numbers["probability_original"] = probability[_ORIGINAL]
        for name in response:
            numbers |= {f"response/{name}": response[name], f"probability/{name}": probability[name]}
        for metric, value in numbers.items():
            measures[Measure(picture, metric, "sparsity", sparsity)] = torch.tensor([value], dtype=torch.float64)
    return measures


def _shown(name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Decoded:
    """The pictures of one image as its figures show them."""
    networks = {
        Network(*network): Picture(_pixels(image), own, original)
        for network, image, own, original in zip(
            about["networks"], tensors["decoded"], about["own"], about["original"], strict=True
        )
    }
    rows = {tuple(channel): row for row, channel in enumerate(about["channels"])}
    neurons = {}
    for method, top in about["top"].items():
        image = tensors["neurons"][rows[top["site"], top["channel"]]]
        # A line for the module and one for its part: names of sites are longer than pictures are wide.
        site = top["site"] if len(top["site"]) < 17 else ".\n".join(top["site"].rsplit(".", 1))
        neurons[method] = Picture(_pixels(image), label=f"{site}\nchannel {top['channel']}")
    source = Picture(_pixels(tensors["input"][0]), about["input"], about["input"])
    true = f"\ntrue {about['true']}" if "true" in about else ""  # not in files of before it was written
    return Decoded(name, f"predicted {about['class']}{true}", source, networks, neurons)


def _pixels(image: Tensor) -> Any:
    """(H, W, C) in [0, 1]; None where there is no picture."""
    return None if image.isnan().any() else image.permute(1, 2, 0).clamp(0, 1).numpy()
