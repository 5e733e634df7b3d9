"""Work that cpath is timed beside: bare passes that it must contain, Captum, the loop one would write first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpath.threshold import pruned_count


def repeated(times: int, work: Callable[..., object], *arguments: object) -> None:
    """Call a function several times.

    Args:
        times: number of calls.
        work: the function.
        arguments: its arguments.
    """
    for _ in range(times):
        work(*arguments)


def forward_backward(model: nn.Module, images: Tensor) -> Tensor:
    """Pass forwards once and, to the input alone, backwards from the largest logits.

    Args:
        model: in eval mode.
        images: (B, C, H, W).

    Returns:
        (B, C, H, W) gradients.
    """
    source = images.clone().requires_grad_()
    response = model(source).max(1).values.sum()
    return torch.autograd.grad(response, source)[0]


def gated_forward_backward(model: nn.Module, images: Tensor) -> None:
    """Run one bare iteration of routing: a gate on every neuron, the distillation loss, the gates' gradients.

    Args:
        model: in eval mode, with ReLU modules.
        images: (B, C, H, W).
    """
    gates: list[Tensor] = []

    def gate(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        gates.append(torch.ones_like(output, requires_grad=True))
        return output * gates[-1]

    with _hooked(hidden_relus(model), gate):
        log_q = model(images).log_softmax(1)
    torch.autograd.grad(-(log_q.detach().exp() * log_q).sum(), gates)


def forward_passes(model: nn.Module, images: Tensor, count: int) -> None:
    """Pass a batch forwards several times.

    The passes are repeated instead of enlarged because larger batches take longer for each image on a CPU.

    Args:
        model: in eval mode.
        images: (B, C, H, W).
        count: number of passes.
    """
    with torch.no_grad():
        for _ in range(count):
            model(images).softmax(1)


def training_steps(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    augmentation: Callable[[Tensor, torch.Generator], Tensor],
    epochs: int,
    batch: int,
) -> None:
    """Train by Adam on bytes that lie on the device: indexing, scaling, augmenting, a step; nothing else.

    Images and weights are in the channels-last format, the faster one.

    Args:
        model: network, which is trained.
        pixels: (N, C, H, W) bytes on the device of the model.
        labels: (N,) classes on the same device.
        augmentation: changes a batch of normalised images with the draws of a generator.
        epochs: number of passes through the images.
        batch: images in a step.
    """
    device = pixels.device
    draws = torch.Generator(device).manual_seed(0)
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(epochs):
        for where in torch.split(torch.randperm(len(pixels)).to(device), batch):
            images = augmentation((pixels[where].float() / 255 - 0.5) / 0.25, draws)
            images = images.contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(images), labels[where])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def hidden_relus(model: nn.Module) -> list[nn.Module]:
    """List the ReLU modules that are sites unless one is named: those in front of some parameter.

    Args:
        model: a model whose modules run in the order in which it holds them.

    Returns:
        The modules, without such as the last one of a SqueezeNet, whose output is the answer itself.
    """
    modules = list(model.modules())
    last = max(place for place, module in enumerate(modules) if any(True for _ in module.parameters(recurse=False)))
    return [module for module in modules[:last] if isinstance(module, nn.ReLU)]


def naive_mct(model: nn.Module, images: Tensor, sparsity: float) -> list[Tensor]:
    """Find pathways of |z · ∂f/∂z| as one writes it first: hooks, image by image, all gradients, `kthvalue`.

    Args:
        model: in eval mode, with ReLU modules.
        images: (B, C, H, W).
        sparsity: per cent of the neurons that are pruned.

    Returns:
        (neurons,) mask of each image.
    """
    masks = []
    for image in images:
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor, seen: list[Tensor] = seen) -> None:
            output.retain_grad()
            seen.append(output)

        with _hooked(hidden_relus(model), keep):
            model(image[None]).max().backward()
        scores = torch.cat([(z * z.grad).abs().flatten() for z in seen if z.grad is not None])
        masks.append(scores > scores.kthvalue(pruned_count(sparsity, len(scores))).values)
    return masks


def naive_intgrad(model: nn.Module, image: Tensor, nodes: int) -> list[Tensor]:
    """Integrate the gradients of every neuron as one would write it first: a whole pass for every site and node.

    Args:
        model: in eval mode, with ReLU modules.
        image: (C, H, W).
        nodes: number of nodes of the midpoint rule.

    Returns:
        (1, *site) scores of each site.
    """
    return _naive_intgrad(lambda: model(image[None]), hidden_relus(model), nodes)


def naive_intgrad_of_text(model: nn.Module, text: Mapping[str, Tensor], nodes: int) -> list[Tensor]:
    """Do the same for a text encoder.

    Args:
        model: classifier of transformers in eval mode, with GELU modules.
        text: its arguments, of one text.
        nodes: number of nodes of the midpoint rule.

    Returns:
        (1, tokens, channels) scores of each site.
    """
    gelus = [module for module in model.modules() if type(module).__name__.startswith("GELU")]
    return _naive_intgrad(lambda: model(**text).logits, gelus, nodes)


def _naive_intgrad(run: Callable[[], Tensor], layers: Sequence[nn.Module], nodes: int) -> list[Tensor]:
    """Integrate the gradients of the outputs of layers, each of which runs once in a pass."""
    sites: list[Tensor] = []
    with _hooked(layers, lambda module, inputs, output: sites.append(output.detach())), torch.no_grad():
        target = run().argmax()
    found = []
    for layer, z in zip(layers, sites, strict=True):
        total = torch.zeros_like(z)
        for node in range(nodes):
            scaled = (z * (node + 0.5) / nodes).requires_grad_()
            with _hooked([layer], lambda module, inputs, output, scaled=scaled: scaled):
                total += torch.autograd.grad(run()[0, target], scaled)[0]
        found.append((z * total / nodes).abs())
    return found


def captum_layers(model: nn.Module, images: Tensor, steps: int) -> None:
    """Compute `neuron_intgrad` by Captum, module by module; an image at a time, its fastest way on a CPU.

    Args:
        model: in eval mode, with ReLU modules.
        images: (B, C, H, W).
        steps: number of nodes of the midpoint rule.
    """
    from captum.attr import LayerIntegratedGradients

    layers = hidden_relus(model)
    with torch.no_grad():
        target = model(images).argmax(1)
    at_once = 1 if images.device.type == "cpu" else len(images)
    for part, classes in zip(torch.split(images, at_once), torch.split(target, at_once), strict=True):
        for layer in layers:
            LayerIntegratedGradients(model, layer).attribute(
                part, target=classes, n_steps=steps, method="riemann_middle"
            )


def captum_attributions(model: nn.Module, images: Tensor) -> dict[str, Callable[[], object]]:
    """Captum's attributions, called as its documentation does.

    Args:
        model: in eval mode, with ReLU modules.
        images: (B, C, H, W).

    Returns:
        A call without arguments by cpath's name of the attribution.
    """
    from captum import attr

    with torch.no_grad():
        target = model(images).argmax(1)
    last = [module for module in model.modules() if isinstance(module, nn.ReLU)][-1]
    source = images.clone().requires_grad_()
    return {
        "gradients": lambda: attr.Saliency(model).attribute(source, target=target, abs=False),
        "input_mct": lambda: attr.InputXGradient(model).attribute(source, target=target),
        "input_intgrad": lambda: attr.IntegratedGradients(model).attribute(
            images, target=target, n_steps=50, internal_batch_size=len(images)
        ),
        "gbp": lambda: _quiet(lambda: attr.GuidedBackprop(model).attribute(source, target=target)),
        "gradcam": lambda: attr.LayerGradCam(model, last).attribute(images, target=target, relu_attributions=True),
    }


def _quiet(work: Callable[[], object]) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum warns that it sets hooks
        return work()


@contextmanager
def _hooked(layers: Iterable[nn.Module], hook: Callable[..., object]) -> Iterator[None]:
    """Keep ``hook`` on every one of some layers."""
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
