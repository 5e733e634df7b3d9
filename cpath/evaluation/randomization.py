"""Blocks of a network, from the logits to the input, and new weights for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cpath._torch import initialiser
from cpath.errors import InputError, unknown_name
from cpath.inputs import Given, Inputs
from cpath.sites import evaluating, unwrap

INITS = ("normal", "own")

Blocks = Mapping[str, Sequence[str]] | Sequence[str]
"""Names of modules or parameters, from the logits to the input, or lists of them by a block's name."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)


def find_blocks(model: nn.Module, inputs: Given | Inputs) -> dict[str, tuple[str, ...]]:
    """Find the blocks of a model, from the logits to the input.

    A block is a module in the model itself, its Sequentials or module lists: a convolution, a linear layer, or a
    whole module such as a residual, dense or inception block. Normalisation belongs to the block before it. Inside
    a wrapper, or inside a module that holds most of the parameters and a list of like modules (a transformer's
    encoder), the blocks are those within. The order is that of first use in a forward pass.

    Args:
        model: The model.
        inputs: Inputs (B, …) that the model can take, see `cpath.inputs`. One is enough.

    Returns:
        Names of the parameters of each block, by the block's name. Parameters that the forward pass does not use
        (auxiliary heads) are in no block.

    Raises:
        InputError: If the model uses no parameter, or an argument is unusable.

    Example:
        >>> list(cpath.evaluation.find_blocks(model, images))
        ['fc', 'conv2', 'conv1']
    """
    model = unwrap(model)
    inputs = Inputs.of(inputs)
    modules = dict(model.named_modules())
    opened = _opened(model)
    blocks: dict[str, list[str]] = {}
    previous = None
    for parameter in _in_order_of_use(model, inputs):
        block = _block_of(parameter, opened)
        if previous is not None and block not in blocks and isinstance(modules.get(block), _NORMS):
            block = previous
        blocks.setdefault(block, []).append(parameter)
        previous = block
    if not blocks:
        raise InputError("the model uses no parameter: there is nothing to randomise.")
    return {name: tuple(blocks[name]) for name in reversed(blocks)}


def resolve_blocks(model: nn.Module, blocks: Blocks) -> dict[str, tuple[str, ...]]:
    """Find the parameters of the user's blocks.

    Args:
        model: The model.
        blocks: Names of modules or parameters from the logits to the input, or lists of them by a block's name.

    Returns:
        Names of the parameters of each block, by the block's name.

    Raises:
        InputError: If there is no block, or a block has no parameter.
    """
    named = blocks if isinstance(blocks, Mapping) else {name: [name] for name in blocks}
    parameters = [name for name, _ in unwrap(model).named_parameters()]
    found: dict[str, tuple[str, ...]] = {}
    for block, members in named.items():
        members = [members] if isinstance(members, str) else members
        for member in members:
            if not any(_within(name, member) for name in parameters):
                raise InputError(f"block '{block}': the model has no parameter in '{member}'.")
        found[block] = tuple(name for name in parameters if any(_within(name, member) for member in members))
    if not found:
        raise InputError("blocks is empty: name at least one.")
    return found


def redraw(
    model: nn.Module, parameters: Iterable[str], generator: torch.Generator, init: str = "normal", std: float = 0.1
) -> None:
    """Give parameters of a model new values, in place, weights and biases alike.

    Args:
        model: The model.
        parameters: Names of the parameters.
        generator: Generator on the CPU, the only source of randomness.
        init: "normal" for N(0, ``std``²), which leaves BatchNorm's running statistics as they are; "own" for the
            layers' ``reset_parameters()``, which also resets these statistics.
        std: Standard deviation of "normal". The paper's N(0, 0.1) is read as a standard deviation of 0.1.

    Raises:
        UnknownNameError: If ``init`` is unknown.
        InputError: If ``init`` is "own" and a module has no ``reset_parameters()``.

    Example:
        >>> from copy import deepcopy
        >>> network = deepcopy(model)
        >>> cpath.evaluation.redraw(network, ["fc.weight"], torch.Generator().manual_seed(0))
        >>> torch.equal(network.fc.weight, model.fc.weight), torch.equal(network.fc.bias, model.fc.bias)
        (False, True)
    """
    if init not in INITS:
        raise unknown_name("init", init, INITS)
    if init == "own":
        _reset(model, parameters, generator)
        return
    for name in parameters:
        values = model.get_parameter(name).data
        values.copy_(std * torch.randn(values.shape, generator=generator, device=generator.device))


def _reset(model: nn.Module, parameters: Iterable[str], generator: torch.Generator) -> None:
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in parameters):
        module = model.get_submodule(owner)
        reset = initialiser(module)
        if reset is None:
            raise InputError(
                f"'{owner}' ({type(module).__name__}) has parameters of its own but no reset_parameters(): "
                "name blocks without it, or use init='normal'."
            )
        devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
        # Layers draw from the global generators, which must be afterwards as they were.
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
            reset()


def _within(parameter: str, member: str) -> bool:
    return parameter == member or parameter.startswith(f"{member}.")


class _Uses(TorchFunctionMode):
    """Record of the parameters that torch functions are called with, in order of first use."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.seen: dict[str, None] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") != "__get__":  # reading a property (dtype, shape) is no use
            self._note((*args, *kwargs.values()))
        return func(*args, **kwargs)

    def _note(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, (list, tuple)):
                self._note(value)
            elif id(value) in self._names:
                self.seen[self._names[id(value)]] = None


def _in_order_of_use(model: nn.Module, inputs: Inputs) -> list[str]:
    with evaluating(model), torch.no_grad(), _Uses(model) as uses:
        inputs[:1].clone().call(model)
    return list(uses.seen)


def _block_of(parameter: str, opened: set[str]) -> str:
    """Find the outermost module around ``parameter`` that is not opened; the parameter itself if there is none."""
    path = parameter.split(".")
    for length in range(1, len(path)):
        name = ".".join(path[:length])
        if name not in opened:
            return name
    return parameter


def _opened(model: nn.Module) -> set[str]:
    """Find the modules that are not blocks themselves but hold blocks."""
    total = _size(model)
    opened: set[str] = set()

    def open_up(name: str, module: nn.Module) -> None:
        opened.add(name)
        children = [(key, child) for key, child in module.named_children() if _size(child)]
        for key, child in children:
            inner = f"{name}.{key}" if name else key
            wrapper = len(children) == 1 and _size(child) == total and bool(list(child.children()))
            alone = [type(sibling) for _, sibling in children].count(type(child)) == 1
            body = alone and 2 * _size(child) > total and _has_like_modules(child)
            if isinstance(child, _CONTAINERS) or wrapper or body:
                open_up(inner, child)

    open_up("", model)
    return opened


def _has_like_modules(module: nn.Module) -> bool:
    """Check for a list in ``module`` that holds two modules of one type, made of other modules."""
    for child in module.children():
        if isinstance(child, _CONTAINERS):
            composed = [type(m) for m in child.children() if list(m.children()) and not isinstance(m, _CONTAINERS)]
            if len(composed) > len(set(composed)):
                return True
    return False


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
