"""Models by name, and the loading of weights. A user's own model is any function of (classes, shape)."""

from cpath.models.checkpoint import load_checkpoint
from cpath.models.packaged import efficientnet_lite0
from cpath.models.resnet import ResNet, resnet8, resnet8_narrow
from cpath.models.torchvision import torchvision_model

__all__ = ["ResNet", "efficientnet_lite0", "load_checkpoint", "resnet8", "resnet8_narrow", "torchvision_model"]
