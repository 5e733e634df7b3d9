"""
Pathways of classes
===================

How often each unit is in the pathways of a class's inputs, which classes share their pathways, and how typical an
input's pathway is of the class that the network predicts.
"""

import matplotlib.pyplot as plt
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
# A counter takes pathways batch by batch, and holds one small number for each class and unit.

counter = cpath.PathwayCounter(classes=10)
for start in range(0, 600, 200):
    some = slice(start, start + 200)
    counter.update(cpath.find_pathway(model, images[some], "neuron_mct", sparsity=90), labels[some])
counter

# %%
# The overlap of the classes' pathways: units in more than half of the pathways of a class.

similarity = counter.similarity()
figure, panel = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
drawn = panel.imshow(similarity.fill_diagonal_(float("nan")), cmap="viridis")
figure.colorbar(drawn, label="Jaccard index")
_ = panel.set(xlabel="class", ylabel="class", xticks=range(10), yticks=range(10))

# %%
# An input whose pathway is untypical of the predicted class is more often one that the network gets wrong.

pathway = cpath.find_pathway(model, images[1400:], "neuron_mct", sparsity=90)
predicted = model(images[1400:]).argmax(1)
typical = counter.typicality(pathway, predicted)
right = predicted == labels[1400:]
print(f"typicality: {typical[right].mean():.2f} where the network is right ({int(right.sum())} images),", end=" ")
print(f"{typical[~right].mean():.2f} where it is wrong ({int((~right).sum())})")
