"""
Do the best units carry the answer?
===================================

Faithfulness asks how much of the network's answer the best-scored units recover alone, and how much is lost without
them. Random units and all active ones stand beside every method.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import cpath

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
labels = torch.tensor(digits.target)
torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(300):
    batch = torch.randint(1500, (64,))
    loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()
test = images[1500:1532]

# %%
# 1 is the whole answer, 0 that of the network without any unit. The numbers at the right are mean distances from 1:
# 0 is best, and what random units get is worth nothing.

scores = cpath.score(model, test, "neuron_mct")
beside = ("random", "active", "neuron_intgrad")
found = cpath.faithfulness(model, test, scores, beside=beside)
figure = found.show()
figure

# %%
# A small distance alone proves nothing: an order of units can be fitted to one input. The same units on copies of
# the input that they were not found for (noise, a shift, a crop, mild compression) tell such orders apart.

copies = cpath.evaluation.faithfulness_transfer(model, test, scores)
print(f"median distance from 1 on the input itself: {found.cmd.nanmedian():.2f}")
for name, on_copy in copies.items():
    print(f"{name}: {on_copy.cmd.nanmedian():.2f}")
