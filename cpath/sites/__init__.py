"""Sites: the places of a forward pass whose outputs are split into units, seen without touching the model.

The argument ``sites`` of every function names them, by one entry or several:

==========================  ======================================================================================
``"relu"``, ``"gelu"``      every call of the activation function (see `cpath.ACTIVATIONS`)
``"attention"``             every scaled dot-product attention, per head: (B, heads, tokens, d)
``nn.PReLU``, ``"PReLU"``   the output of every module of this class or one derived from it, also by dotted name
``"encoder.layers.*.mlp"``  the output of every module whose whole name matches; ``*`` stands for anything, dots too
``"blocks.*:gelu"``         the calls of a function in the modules whose name matches
``"!blocks.0.*"``           takes the sites whose names match out of those that the other entries chose
==========================  ======================================================================================

The output of a module that returns several things (a tuple, a mapping, an output object of Hugging Face) is the
first tensor in it; what takes its place is what the model goes on with, also where the module wrote over its input.
An activation function that the model does not call chooses nothing; any other entry that matches nothing is an
error. A function's name goes before a module's, and a module's before a class's.

A ``TorchFunctionMode`` sees the call of a function itself, whichever module made it, so in-place, functional and
reused activations are all the same case. Attention is seen where the model calls
``torch.nn.functional.scaled_dot_product_attention`` (torchvision, timm, Hugging Face with
``attn_implementation="sdpa"``) or ``nn.MultiheadAttention``, which takes no fast path while it is watched;
attention that a model writes out as products and a softmax can be had as the output of a module. Outputs of modules
are seen by a hook that exists inside the ``with`` block alone.

A site is named after the innermost module of the model on the Python call stack; from the second call of that name
in a forward pass on, the number of the call follows:

===========================  ======================================================
``layer1.0.relu``            the first call of the activation module of that name
``layer1.0.relu#2``          the second call of the same module (torchvision ResNets)
``layer1.0:relu``            a functional call inside module ``layer1.0``
``blocks.0.attn:attention``  attention inside module ``blocks.0.attn``
``encoder.layers.0.mlp``     the output of the module of that name
===========================  ======================================================

Worked example. This block calls one ReLU module twice, and a functional ReLU between:

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
    ...         self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
    ...         self.relu = nn.ReLU(inplace=True)
    ...
    ...     def forward(self, x):
    ...         out = self.relu(self.conv1(x))
    ...         out = torch.nn.functional.relu(self.conv2(out))
    ...         return self.relu(out - x)
    >>> network = nn.Sequential(OrderedDict(block=Block(), flatten=nn.Flatten(), fc=nn.Linear(192, 5)))
    >>> with cpath.observe(network) as seen, torch.no_grad():
    ...     _ = network(images)
    >>> for name, z in seen.activations.items():
    ...     print(name, tuple(z.shape))
    block.relu (2, 3, 8, 8)
    block:relu (2, 3, 8, 8)
    block.relu#2 (2, 3, 8, 8)
"""

from cpath.sites.choice import DEFAULT_SITES as DEFAULT_SITES
from cpath.sites.choice import Sites as Sites
from cpath.sites.choice import check_sites as check_sites
from cpath.sites.functions import ACTIVATIONS as ACTIVATIONS
from cpath.sites.functions import ATTENTION as ATTENTION
from cpath.sites.functions import FUNCTIONS as FUNCTIONS
from cpath.sites.functions import KINKS as KINKS
from cpath.sites.functions import count_calls as count_calls
from cpath.sites.mode import EVERY_SITE as EVERY_SITE
from cpath.sites.mode import RightGradients as RightGradients
from cpath.sites.mode import Visitor as Visitor
from cpath.sites.model import check_model as check_model
from cpath.sites.model import unwrap as unwrap
from cpath.sites.modules import check_met as check_met
from cpath.sites.modules import intercept as intercept
from cpath.sites.observing import Observation as Observation
from cpath.sites.observing import differentiating as differentiating
from cpath.sites.observing import evaluating as evaluating
from cpath.sites.observing import is_active as is_active
from cpath.sites.observing import is_dead as is_dead
from cpath.sites.observing import observe as observe
