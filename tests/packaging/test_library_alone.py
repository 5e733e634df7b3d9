"""What `pip install critical-pathways` brings is enough for the library: torch, numpy, safetensors."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())

import torch
from torch import nn
import cpath, cpath.analysis

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
images = torch.randn(2, 3, 8, 8)
pathway = cpath.find_pathway(model, images, "neuron_intgrad", sparsity=90)
with pathway.restrict(model):
    logits = model(images)
print(pathway.masks["1"].shape, (pathway.sparsity >= 90).all().item(), torch.equal(logits, model(images)))
try:
    cpath.attribute(model, images, "gradients")
except cpath.MissingPackageError as error:
    print("captum" in str(error))
"""
_ABSENT = (
    *("tqdm", "scipy", "PIL", "torchvision", "captum", "pytorch_lightning", "lightning_fabric", "pandas"),
    *("matplotlib", "sklearn", "skimage", "lucent", "hydra", "omegaconf", "wandb"),
)


def test_the_library_alone_finds_pathways():
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", _SCRIPT, *_ABSENT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["torch.Size([2, 4, 6, 6]) True False", "True"]
