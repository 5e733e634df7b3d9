"""Datasets by name: functions that return an `ImageData`. A user's own is any function that does."""

from cpath.data.augmentation import crop_and_flip
from cpath.data.base import FileSplit, ImageData, Normalisation, Split, TensorSplit
from cpath.data.batches import Batches
from cpath.data.cifar10 import cifar10
from cpath.data.digits import digits
from cpath.data.folders import imagefolder, imagenet, imagenet_wnids
from cpath.data.inputs import InputData, InputSplit, topics

__all__ = [
    "Batches",
    "FileSplit",
    "ImageData",
    "InputData",
    "InputSplit",
    "Normalisation",
    "Split",
    "TensorSplit",
    "cifar10",
    "crop_and_flip",
    "digits",
    "imagefolder",
    "imagenet",
    "imagenet_wnids",
    "topics",
]
