"""Models by name, and the loading of weights. A user's own model is any function of (classes, shape)."""

from cpath.models.checkpoint import load_checkpoint
from cpath.models.focus import FocusViT, focus_vit, mean_importance
from cpath.models.onnx_weights import onnx_weights
from cpath.models.packaged import efficientnet_lite0
from cpath.models.resnet import ResNet, resnet8, resnet8_narrow
from cpath.models.topics import PrototypeClassifier, minilm_topics, topic_sentences, topic_tokens
from cpath.models.torchvision import torchvision_model

__all__ = [
    "FocusViT",
    "PrototypeClassifier",
    "ResNet",
    "efficientnet_lite0",
    "focus_vit",
    "load_checkpoint",
    "mean_importance",
    "minilm_topics",
    "onnx_weights",
    "resnet8",
    "resnet8_narrow",
    "topic_sentences",
    "topic_tokens",
    "torchvision_model",
]
