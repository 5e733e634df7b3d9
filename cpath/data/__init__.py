"""Datasets by name: functions that return an `ImageData`. A user's own is any function that does."""

from cpath.data.base import FileSplit, ImageData, Normalisation, Split, TensorSplit
from cpath.data.cifar10 import cifar10
from cpath.data.digits import digits
from cpath.data.folders import imagefolder, imagenet, imagenet_wnids

__all__ = [
    "FileSplit",
    "ImageData",
    "Normalisation",
    "Split",
    "TensorSplit",
    "cifar10",
    "digits",
    "imagefolder",
    "imagenet",
    "imagenet_wnids",
]
