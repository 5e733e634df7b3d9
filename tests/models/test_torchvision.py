from __future__ import annotations

import sys

import pytest
import torch

import cpath
from cpath.errors import InputError, UnknownNameError
from cpath.models import torchvision_model
from cpath.models.torchvision import names


def test_the_names_are_those_of_torchvision_s_classifiers():
    assert {"alexnet", "vgg16", "squeezenet1_0", "resnet50", "vit_b_16", "swin_v2_t"} <= set(names())
    # What finds objects, cuts out regions, looks at films or computes in whole numbers is none.
    others = {"fasterrcnn_resnet50_fpn", "fcn_resnet50", "r3d_18", "raft_large", "quantized_resnet50"}
    assert not others & set(names())
    assert list(names()) == sorted(names())


def test_without_torchvision_its_models_are_refused_with_what_to_install(monkeypatch):
    names.cache_clear()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    with pytest.raises(cpath.MissingPackageError, match=r"torchvision.*pip install 'critical-pathways\[exp"):
        torchvision_model("resnet18", classes=10)


def test_torchvision_models_come_by_name():
    model = torchvision_model("squeezenet1_1", classes=7)
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(UnknownNameError, match="Did you mean"):
        torchvision_model("rensnet18", classes=7)
    with pytest.raises(UnknownNameError, match="IMAGENET1K_V1"):
        torchvision_model("resnet18", classes=1000, weights="IMAGENET")
    with pytest.raises(InputError, match=r"pass weights=None \(model\.weights=null\)"):
        torchvision_model("resnet18", classes=10, weights="DEFAULT")
    with pytest.raises(InputError, match=r"channels=3 \(dataset\.channels=3\)"):
        torchvision_model("resnet18", classes=10, shape=(1, 64, 64))
