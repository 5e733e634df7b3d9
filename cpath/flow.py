"""The way of the sites' outputs through a forward pass, and the parameters that they meet before the answer.

Worked example. Behind the first ReLU of this model comes a linear layer; behind the second, the answer:

    >>> from cpath.flow import Flow
    >>> from cpath.sites import intercept
    >>> head = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU())
    >>> flow = Flow(head)
    >>> with torch.no_grad(), flow, intercept(head, flow.start):
    ...     answer = head(images)
    >>> sorted(flow.sites_of(answer)), sorted(flow.hidden)
    (['2', '4'], ['2'])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _Origin(NamedTuple):
    """Kind of the tensors, and names of the sites, that a tensor was computed from."""

    rank: int
    sites: frozenset[str] = frozenset()


# The highest rank of what a tensor was computed from. Every tensor that is not known is taken for data.
_MADE, _BUFFER, _PARAMETER, _DATA = range(4)

# Operations in which a tensor of numbers that are no parameters, as the buffers of a frozen head, does what a
# weight does. In others (an offset, a normalisation) it does not mix the units.
_PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    (
        *(F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d),
        *(F.conv_transpose3d, torch.conv1d, torch.conv2d, torch.conv3d, F.cosine_similarity, torch.cdist),
        *(torch.matmul, torch.mm, torch.bmm, torch.mv, torch.addmm, torch.baddbmm, torch.einsum, torch.tensordot),
        *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm, Tensor.mv, Tensor.addmm),
    )
)


class Flow(TorchFunctionMode):
    """Mode that follows the outputs of sites, and notes those that a parameter of the model meets.

    Parameters are met also by what is computed from them alone (a normalised or tied weight), and so is any other
    tensor of the model that takes part in a product. A single number (a temperature) does not count: it mixes no
    units. What leaves torch on the way, or passes an autograd function of the user's, is lost sight of.

    Args:
        model: The model.

    Attributes:
        hidden: Names of the sites whose outputs have met a parameter so far.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.hidden: set[str] = set()
        # By identity of the tensor; the reference tells whether it still is the same one.
        self._origins: dict[int, tuple[ref[Tensor], _Origin]] = {}
        for module in model.modules():
            for value in (*vars(module).values(), *module.buffers(recurse=False)):
                if isinstance(value, Tensor):
                    self._set(value, _Origin(_BUFFER))
        for parameter in model.parameters():
            self._set(parameter, _Origin(_PARAMETER))

    def start(self, name: str, output: Tensor) -> None:
        """Follow the output of a site.

        Args:
            name: Name of the site.
            output: Its output.
        """
        self._set(output, _Origin(_DATA, self._origin(output).sites | {name}))

    def sites_of(self, output: object) -> frozenset[str]:
        """Get the sites whose outputs a result was computed from.

        Args:
            output: Tensor, or tensors in tuples, lists and mappings.

        Returns:
            Names of the sites.
        """
        return frozenset().union(*(self._origin(tensor).sites for tensor in _tensors(output)))

    def _set(self, tensor: Tensor, origin: _Origin) -> None:
        self._origins[id(tensor)] = ref(tensor), origin

    def _origin(self, tensor: Tensor) -> _Origin:
        if isinstance(tensor, nn.Parameter):
            return _Origin(_PARAMETER)
        found = self._origins.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else _Origin(_DATA)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        given = [(tensor.numel(), self._origin(tensor)) for tensor in _tensors((args, kwargs))]
        sites = frozenset().union(*(origin.sites for _, origin in given))
        weights = {origin.rank for size, origin in given if size > 1}
        if _PARAMETER in weights or (_BUFFER in weights and func in _PRODUCTS):
            self.hidden |= sites
        origin = _Origin(max((origin.rank for _, origin in given), default=_MADE), sites)
        for tensor in _tensors(args[0] if output is None and args else output):
            self._set(tensor, origin)
        return output


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
