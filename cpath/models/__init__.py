"""Models by name, and the loading of weights. A user's own model is any function of (classes, shape)."""

from cpath.models.checkpoint import load_checkpoint
from cpath.models.packaged import efficientnet_lite0
from cpath.models.resnet import ResNet, resnet8, resnet8_narrow
from cpath.models.topics import PrototypeClassifier, minilm_topics, topic_sentences, topic_tokens
from cpath.models.torchvision import torchvision_model

__all__ = [
    "PrototypeClassifier",
    "ResNet",
    "efficientnet_lite0",
    "load_checkpoint",
    "minilm_topics",
    "resnet8",
    "resnet8_narrow",
    "topic_sentences",
    "topic_tokens",
    "torchvision_model",
]
