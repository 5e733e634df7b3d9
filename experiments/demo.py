"""`python -m experiments.demo`: a real ImageNet network on real photographs, with nothing to download but packages.

EfficientNet-Lite0 has its weights from the package index; the photographs are inside scikit-image and scikit-learn.
It prints what it found and leaves two pages that need nothing from elsewhere: a gallery, and an explorer in which
photographs, sparsities, units and sites are picked.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor, nn

import cpath
from cpath.data import Normalisation
from cpath.optional import optional
from cpath.storage import replacing
from experiments.engine.command import command
from experiments.engine.terminal import print_table

SITES = ("relu6",)
SPARSITIES = (80.0, 90.0, 95.0, 99.0)
MAPS = ("neuron_mct", "gradcam", "input_mct", "gradients", "random")
STOPS = (50.0, 80.0, 90.0, 95.0, 99.0)
"""Sparsities of the explorer's slider."""
_METHODS = ("neuron_mct", "random")
_SHOWN = 95.0  # per cent pruned, in the gallery's picture of a pathway
_SCALE = Normalisation((0.5,) * 3, (0.5,) * 3)
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Critical pathways of EfficientNet-Lite0</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }}
img {{ max-width: max(100%, 44rem); height: auto; background: #fff }}
.scroll {{ overflow-x: auto }} figure {{ margin: 1rem 0 }}
table.kept {{ border-collapse: collapse }}
table.kept td, table.kept th {{ padding: .2rem .8rem; text-align: right }}
table.kept td:first-child, table.kept th:first-child {{ text-align: left }}
@media (prefers-color-scheme: dark) {{ body {{ background: #15181c; color: #e4e7ea }} }}
</style>
<h1>Critical pathways of EfficientNet-Lite0</h1>
{body}
</html>
"""


@dataclass(frozen=True, eq=False)
class Findings:
    """Pathways of the photographs, and what they carry.

    Args:
        images: normalised photographs (B, 3, 224, 224).
        predicted: name of each photograph's predicted class.
        probability: of that class (B,).
        kept: share of the photographs that keep their class, per cent, by method and sparsity.
        maps: saliency maps (B, C, H, W) by method.
        pathway: the pathways that are shown.
        scores: the scores that they come from.
    """

    images: Tensor
    predicted: list[str]
    probability: Tensor
    kept: Mapping[tuple[str, float], float]
    maps: Mapping[str, Tensor]
    pathway: cpath.Pathway
    scores: cpath.Scores


def photographs() -> tuple[list[str], Tensor]:
    """Read the photographs that ship inside scikit-image and scikit-learn.

    Returns:
        Their names, and normalised images (B, 3, 224, 224): resized to 256 pixels (bicubic), cropped at the centre.

    Raises:
        MissingPackageError: if one of both is not installed.
    """
    found = optional("skimage.data", "critical-pathways[experiments]", "the demo")
    datasets = optional("sklearn.datasets", "critical-pathways[experiments]", "the demo")
    pictures = {name: getattr(found, name)() for name in ("chelsea", "coffee", "rocket", "astronaut")}
    pictures |= {name: datasets.load_sample_image(f"{name}.jpg") for name in ("flower", "china")}
    return list(pictures), torch.stack([_prepared(picture) for picture in pictures.values()])


def _prepared(picture: np.ndarray) -> Tensor:
    from torchvision.transforms import v2

    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    image = v2.functional.resize(image, [256], v2.InterpolationMode.BICUBIC, antialias=True)
    return _SCALE.apply(v2.functional.center_crop(image, [224]).float() / 255)


def find(model: nn.Module, images: Tensor, classes: Sequence[str]) -> Findings:
    """Find the pathways of photographs, beside random ones.

    Args:
        model: a classifier whose activation functions are ReLU6.
        images: normalised photographs (B, 3, H, W).
        classes: names of the classes.

    Returns:
        What was found.
    """
    with torch.no_grad():
        probability, target = model(images).softmax(1).max(1)
    kept: dict[tuple[str, float], float] = {}
    found: dict[str, cpath.Scores] = {}
    for method in _METHODS:
        found[method] = cpath.score(model, images, method, target, sites=SITES)
        for sparsity in SPARSITIES:
            with found[method].pathway(sparsity).restrict(model), torch.no_grad():
                same = model(images).argmax(1) == target
            kept[method, sparsity] = 100 * float(same.double().mean())
    maps = {name: cpath.attribute(model, images, name, target, sites=SITES) for name in MAPS}
    names = [classes[int(label)] for label in target]
    scores = found["neuron_mct"]
    return Findings(images, names, probability, kept, maps, scores.pathway(_SHOWN), scores)


def explore(model: nn.Module, names: Sequence[str], images: Tensor, classes: Sequence[str]) -> cpath.viz.Explorer:
    """Compute the explorer's page.

    Args:
        model: a classifier whose activation functions are ReLU6.
        names: of the photographs.
        images: normalised photographs (B, 3, H, W).
        classes: names of the classes.

    Returns:
        The page.
    """
    return cpath.explore(
        model,
        images,
        _METHODS,
        sparsity=STOPS,
        sites=SITES,
        unit=("neuron", "channel"),
        normalisation=_SCALE,
        names=names,
        classes=classes,
        title="Critical pathways of EfficientNet-Lite0",
    )


def gallery(names: Sequence[str], findings: Findings) -> str:
    """Write the gallery.

    Args:
        names: of the photographs.
        findings: as `find` returns them.

    Returns:
        HTML that needs nothing from elsewhere.
    """
    said = [
        f"{name}: predicted {predicted} ({100 * float(share):.0f} %)"
        for name, predicted, share in zip(names, findings.predicted, findings.probability, strict=True)
    ]
    figures = [
        (
            cpath.show(findings.maps, findings.images, normalisation=_SCALE, predicted=findings.predicted),
            "Saliency maps over the photographs. NeuronMCT: the gradient of the network that is restricted to its "
            "pathway. Random is the control.",
        ),
        (
            findings.pathway.show(findings.images, normalisation=_SCALE),
            f"The pathways with {_SHOWN:g} % of the neurons pruned: how much of each site they keep, and where.",
        ),
        (findings.scores[0].show(), f"The scores of the first photograph ({escape(names[0])}), site by site."),
    ]
    body = "".join(
        [
            f"<p>{len(names)} photographs: {escape('; '.join(said))}.</p>",
            "<h2>Do pathways keep the class?</h2>",
            "<p>Share of the photographs whose predicted class survives when all other neurons are set to 0.</p>",
            _kept_table(findings.kept),
            *(_figure(figure, caption) for figure, caption in figures),
            "<h2>As a notebook shows them</h2>",
            findings.scores._repr_html_(),
            findings.pathway._repr_html_(),
        ]
    )
    return _PAGE.format(body=body)


def _kept_table(kept: Mapping[tuple[str, float], float]) -> str:
    head = "".join(f"<th>{sparsity:g} % pruned</th>" for sparsity in SPARSITIES)
    rows = "".join(
        f"<tr><td>{cpath.viz.label_of(method)}</td>"
        + "".join(f"<td>{kept[method, sparsity]:.0f} %</td>" for sparsity in SPARSITIES)
        + "</tr>"
        for method in _METHODS
    )
    return f'<div class="scroll"><table class="kept"><tr><th></th>{head}</tr>{rows}</table></div>'


def _figure(figure: Figure, caption: str) -> str:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110)
    data = base64.b64encode(written.getvalue()).decode()
    alt = escape(caption)
    return (
        f'<figure><div class="scroll"><img alt="{alt}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def demo(
    folder: Annotated[Path, typer.Argument(help="The folder of both pages.")] = Path("outputs/demo"),
) -> None:
    """Find the pathways of a real ImageNet network on real photographs, and leave a gallery and an explorer."""
    began = time.monotonic()
    print("EfficientNet-Lite0 with ImageNet weights, photographs of scikit-image and scikit-learn …", flush=True)
    model = cpath.models.efficientnet_lite0(weights="DEFAULT").eval()
    names, images = photographs()
    models = optional("torchvision.models", "critical-pathways[experiments]", "the demo")
    classes = models.ResNet50_Weights.DEFAULT.meta["categories"]
    findings = find(model, images, classes)
    shares = (f"{100 * float(share):.0f} %" for share in findings.probability)
    print_table(("photograph", "predicted", "probability"), [*zip(names, findings.predicted, shares, strict=True)])
    print("\nShare of the photographs that keep their class, of networks restricted to a pathway:")
    rows = [
        (cpath.viz.label_of(method), *(f"{findings.kept[method, sparsity]:.0f} %" for sparsity in SPARSITIES))
        for method in _METHODS
    ]
    print_table(("pathway", *(f"{sparsity:g} % pruned" for sparsity in SPARSITIES)), rows)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "gallery.html"
    with replacing(page) as partial:
        Path(partial).write_text(gallery(names, findings), encoding="utf-8")
    print("\nThe explorer: every photograph at every sparsity …", flush=True)
    explorer = explore(model, names, images, classes).save(folder / "explorer.html")
    for written in (page, explorer):
        print(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
    print(f"after {time.monotonic() - began:.0f} s")


main = command(demo)

if __name__ == "__main__":
    sys.exit(main(None))
