"""Path decoding (paper, section 3): the images that pathways respond to most, and for whom they speak."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from tqdm.auto import tqdm

import cpath
from cpath.attribution.response import ResponseProbe
from cpath.data import ImageData
from cpath.decoding import Channel, Logit, Objective
from cpath.storage import kept_tensors, write_tensors
from experiments.figures.path_decoding import Decoded, Picture, decoding_figures, decoding_pictures
from experiments.framework.job import Job, run_job
from experiments.framework.parts import measure_in_parts
from experiments.framework.results import Key, Row, rows_of_means
from experiments.framework.scored import scorers
from experiments.framework.searches import Search, searches
from experiments.framework.subject import (
    load_data,
    load_images,
    methods_of,
    origin_of,
    sparsities_of,
    trained_model,
)

_KIND, _FORMAT = "decodings", 1
_ORIGINAL, _ACTIVE, _INPUT = "original", "active", "input"

Network = tuple[str, float | None]
"""A network by its method, and the sparsity of its pathway; None for the original one and the active subnetwork."""


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, decoding_figures)


def _compute(job: Job) -> list[Row]:
    cfg = job.cfg
    sparsities, methods = sparsities_of(cfg), methods_of(cfg)
    methods.setdefault(_ACTIVE, cpath.methods.get(_ACTIVE))
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, job.store)
    job.notes["images"] = images.ids
    origin = origin_of(cfg, model, images, methods.values())
    found = searches(methods, sparsities)
    by_label = scorers(job, model, images, {search.label: search.method for search in found})
    decoder = _Decoder(cfg, data, model, found, sparsities)
    files = [job.folder / "images" / f"image-{number:05d}.safetensors" for number in range(len(images))]

    @lru_cache(maxsize=1)
    def scores_of(number: int) -> dict[str, cpath.Scores]:
        return {label: scorer(number) for label, scorer in by_label.items()}

    def decode(index: int) -> dict[Key, float]:
        number, row = divmod(index, cfg.experiment.batch)
        of_image = {label: score[row] for label, score in scores_of(number).items()}
        return decoder.decode(images.batch(slice(index, index + 1)), of_image, files[index], made_of(index))

    def made_of(index: int) -> dict[str, Any]:
        return origin.of(slice(index, index + 1))

    def measure(where: slice, number: int) -> Mapping[Key, Tensor]:
        found = [decode(index) for index in range(where.start, where.stop)]
        return {key: torch.tensor([values[key] for values in found]) for key in found[0]}

    rows = rows_of_means(measure_in_parts(job, images, origin, measure, "decoding"))
    decoded = []
    for index, name in enumerate(images.ids):
        tensors, about = kept_tensors(files[index], _KIND, _FORMAT, partial(decode, index), made_of(index))
        decoded.append(_pictures(name, tensors, about, data))
        rows += [
            Row(method, "top_channel", neuron["channel"], "image", name) for method, neuron in about["top"].items()
        ]
    job.pictures += decoding_pictures(decoded)
    return rows


@dataclass(frozen=True)
class _Decoder:
    """Makes and measures the pictures of one image."""

    cfg: DictConfig
    data: ImageData
    model: nn.Module
    searches: Sequence[Search]
    sparsities: Sequence[float]

    def decode(
        self, image: Tensor, scores: Mapping[str, cpath.Scores], file: Path, made_of: Mapping[str, Any]
    ) -> dict[Key, float]:
        """What the pictures of ``image`` (1, C, H, W) get in which network; ``file`` gets them, and ``made_of``."""
        target = int(scores[_ACTIVE].target)
        networks = self._networks(scores)
        top = self._top_neurons(image, scores)
        channels = list(dict.fromkeys((neuron["site"], neuron["channel"]) for neuron in top.values()))
        made = self._render(
            [*networks.values(), *(None for _ in channels)],
            [*(Logit(target) for _ in networks), *(Channel(site, channel) for site, channel in channels)],
        )
        pictures, neurons = made.images[: len(networks)], made.images[len(networks) :]
        inputs = torch.cat([image, self.data.normalisation.apply(pictures.to(image))])
        responses = {network: self._response(inputs, target, pathway) for network, pathway in networks.items()}
        probabilities = {network: probability[1:] for network, (_, probability) in responses.items()}
        about = {
            "kind": _KIND,
            "format": _FORMAT,
            **made_of,
            "class": self.data.classes[target],
            "networks": list(networks),
            "own": [float(probabilities[network][row]) for row, network in enumerate(networks)],
            "original": [float(value) for value in probabilities[_ORIGINAL, None]],
            "input": float(responses[_ORIGINAL, None][1][0]),
            "channels": channels,
            "top": top,
        }
        tensors = {"input": self.data.normalisation.invert(image), "decoded": pictures}
        write_tensors(file, tensors | ({"neurons": neurons} if channels else {}), about)
        return self._measures(list(networks), responses)

    def _networks(self, scores: Mapping[str, cpath.Scores]) -> dict[Network, cpath.Pathway | None]:
        networks: dict[Network, cpath.Pathway | None] = {(_ORIGINAL, None): None}
        for search in self.searches:
            for sparsity, pathway in search.pathways(scores[search.label]):
                networks[search.name, None if search.name == _ACTIVE else sparsity] = pathway
        return networks

    def _top_neurons(self, image: Tensor, scores: Mapping[str, cpath.Scores]) -> dict[str, dict[str, Any]]:
        """By method: the highest score at the last convolutional site, or at several that are concatenated."""
        with cpath.sites.evaluating(self.model):
            probe = ResponseProbe(self.model, image, activations=self.cfg.activations)
            sites = probe.spatial_sites(self.cfg.experiment.site)
        top = {}
        for search in self.searches:
            if not search.method.graded or search.name in top:
                continue
            by_site = {site: scores[search.label].values[site][0] for site in sites}
            best = max(by_site, key=lambda site: float(by_site[site].max()))
            values = by_site[best]
            if values.max() > 0:
                channel, row, column = (int(i) for i in torch.unravel_index(values.argmax(), values.shape))
                top[search.name] = {"site": best, "channel": channel, "row": row, "column": column}
        return top

    def _render(self, pathways: list[cpath.Pathway | None], objectives: list[Objective]) -> cpath.Decoding:
        settings = self.cfg.experiment
        transforms = [instantiate(node) for node in settings.transforms]
        with (
            warnings.catch_warnings(),
            tqdm(total=len(pathways) * settings.steps, desc="steps", leave=False, disable=None) as bar,
        ):
            warnings.simplefilter("ignore", RuntimeWarning)  # a dead picture stands in the table
            return cpath.decode(
                self.model,
                pathways,
                objectives,
                shape=self.data.shape,
                normalisation=self.data.normalisation,
                parametrisation=settings.parametrisation,
                transforms=transforms,
                steps=settings.steps,
                learning_rate=settings.learning_rate,
                tries=settings.tries,
                seed=self.cfg.seed,
                activations=self.cfg.activations,
                max_batch=settings.together,
                on_step=lambda done, _: bar.update(done - bar.n),
            )

    def _response(self, inputs: Tensor, target: int, pathway: cpath.Pathway | None) -> tuple[Tensor, Tensor]:
        """(P,) logit and probability of the target; NaN for pictures that could not be made."""
        missing = inputs.isnan().flatten(1).any(1)
        with torch.no_grad(), nullcontext() if pathway is None else pathway.restrict(self.model):
            logits = self.model(inputs.nan_to_num()).double()
        logits[missing] = float("nan")
        return logits[:, target], logits.softmax(1)[:, target]

    def _measures(
        self, networks: list[Network], responses: Mapping[Network, tuple[Tensor, Tensor]]
    ) -> dict[Key, float]:
        measures: dict[Key, float] = {}
        for sparsity in self.sparsities:
            here = [network for network in networks if network[1] in (None, sparsity)]
            for picture in [(_INPUT, None), *here]:
                row = 0 if picture[0] == _INPUT else 1 + networks.index(picture)
                at = {network[0]: tuple(float(v[row]) for v in responses[network]) for network in here}
                key = picture[0], "sparsity", sparsity
                if picture[0] != _INPUT:
                    others = [at[name][1] for name, s in here if s is not None and name != picture[0]]
                    measures[*key, "dead"] = float(at[_ORIGINAL][1] != at[_ORIGINAL][1])
                    measures[*key, "probability_own"] = at[picture[0]][1]
                    measures[*key, "probability_others"] = sum(others) / len(others) if others else float("nan")
                measures[*key, "probability_original"] = at[_ORIGINAL][1]
                for name, (response, probability) in at.items():
                    measures[*key, f"response/{name}"] = response
                    measures[*key, f"probability/{name}"] = probability
        return measures


def _pictures(name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any], data: ImageData) -> Decoded:
    def pixels(image: Tensor) -> Any:
        return None if image.isnan().any() else image.permute(1, 2, 0).clamp(0, 1).numpy()

    networks = {}
    for row, (method, sparsity) in enumerate(about["networks"]):
        own, original = about["own"][row], about["original"][row]
        networks[method, sparsity] = Picture(pixels(tensors["decoded"][row]), own, original)
    channels = {tuple(channel): row for row, channel in enumerate(about["channels"])}
    neurons = {}
    for method, top in about["top"].items():
        image = tensors["neurons"][channels[top["site"], top["channel"]]]
        # A line for the module and one for its part: names of sites are longer than pictures are wide.
        site = top["site"] if len(top["site"]) < 19 else ".\n".join(top["site"].rsplit(".", 1))
        neurons[method] = Picture(pixels(image), label=f"{site}\nchannel {top['channel']}")
    source = Picture(pixels(tensors["input"][0]), about["input"], about["input"])
    return Decoded(name, about["class"], source, networks, neurons)
