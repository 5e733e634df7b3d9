"""Makes the pictures of README and the first page: `python docs/pictures.py` (needs the extra `demo`).

A real ImageNet network, whose weights come from the package index, on photographs that scikit-image ships.
"""

from __future__ import annotations

from pathlib import Path

import skimage.data
import torch
import torchvision
from torchvision.transforms import v2

import cpath
from cpath.models import efficientnet_lite0

FOLDER = Path(__file__).with_name("images")
PHOTOGRAPHS = ("chelsea", "rocket", "coffee")


def main() -> None:
    """Write ``maps.png`` and ``pathway.png``."""
    scaled = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    normalisation = cpath.data.Normalisation((0.5,) * 3, (0.5,) * 3)
    images = torch.stack([(scaled(getattr(skimage.data, name)()) - 0.5) / 0.5 for name in PHOTOGRAPHS])
    model = efficientnet_lite0(weights="DEFAULT").eval()
    maps = {
        "neuron_mct": cpath.attribute(model, images, "neuron_mct", sites="relu6"),
        "gradients": cpath.attribute(model, images, "gradients"),
    }
    classes = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    predicted = model(images).argmax(1)
    FOLDER.mkdir(exist_ok=True)
    shown = cpath.show(maps, images, normalisation=normalisation, predicted=predicted, classes=classes)
    shown.savefig(FOLDER / "maps.png", dpi=110)
    pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90, sites="relu6")
    pathway.show().savefig(FOLDER / "pathway.png", dpi=110)


if __name__ == "__main__":
    main()
