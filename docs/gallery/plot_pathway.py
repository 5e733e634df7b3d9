"""
Where a pathway lies
====================

Which share of each site a pathway keeps, and where in the image, for a small network trained on handwritten digits.
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

# %%
# A pathway shows itself in a notebook: its sizes, and the kept share of each site.

pathway = cpath.find_pathway(model, images[1500:1504], "neuron_intgrad", sparsity=90)
pathway

# %%
# ``show`` draws the same for a closer look, with the kept positions over each input.

figure = pathway.show(images[1500:1504])
figure

# %%
# The scores that it was cut from: how strong each site is, how the scores are distributed, and where they are.

scores = cpath.score(model, images[1500:1504], "neuron_intgrad")
figure = scores.show(images[1500:1504])
figure
