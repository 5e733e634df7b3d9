"""What the values of a configuration may be: a job with an absurd one is refused before any work."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from cpath.errors import InputError, unknown_name
from experiments import CONF

Rule = tuple[Callable[[Any], bool], str]
"""Whether a value will do, and what would, in words."""


def _whole(low: int, below: float = math.inf) -> Rule:
    words = f"a whole number of at least {low}" + ("" if below == math.inf else f" and below {below:.0f}")
    return lambda value: _is_number(value, Integral) and low <= value < below, words


def _number(low: float = -math.inf, *, above: bool = False) -> Rule:
    words = "a number" if low == -math.inf else f"a number {'above' if above else 'of at least'} {low:g}"
    return lambda value: _is_number(value, Real) and (value > low if above else value >= low), words


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < math.inf


def _list_of(kind: type, words: str, least: int = 1) -> Rule:
    def valid(value: Any) -> bool:
        return isinstance(value, ListConfig) and len(value) >= least and all(isinstance(one, kind) for one in value)

    return valid, f"a list of {words}"


def _list_where(rule: Rule, words: str) -> Rule:
    return lambda value: isinstance(value, ListConfig) and all(map(rule[0], value)), f"a list of {words}"


def _either(one: Rule, other: Rule) -> Rule:
    return lambda value: one[0](value) or other[0](value), f"{one[1]}, or {other[1]}"


_BOOL: Rule = (lambda value: isinstance(value, bool), "true or false")
_TEXT: Rule = (lambda value: isinstance(value, str) and value != "", "text")
_NULL: Rule = (lambda value: value is None, "null")
_AUTO: Rule = (lambda value: value == "auto", "auto")
_NAMES = _list_of(str, "names")
_NODE: Rule = (lambda value: isinstance(value, DictConfig), "a mapping")
_PAIR: Rule = (
    lambda value: (
        isinstance(value, ListConfig)
        and len(value) == 2
        and isinstance(value[0], str)
        and _is_number(value[1], Integral)
    ),
    "[rule, nodes]",
)
_GROUPS: Rule = (
    lambda value: isinstance(value, DictConfig) and len(value) > 0 and all(map(_NAMES[0], value.values())),
    "lists of names by name",
)
_NUMBERS = _list_where(_number(), "numbers")
_COUNT, _NATURAL, _SEED = _whole(1), _whole(0), _whole(0, 2**32)
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")

RULES: dict[str, Rule] = {
    "seed": _SEED,
    "activations": _either(_TEXT, _NAMES),
    "checkpoint": _either(_TEXT, _NULL),
    "device": _TEXT,
    "threads": _either(_AUTO, _COUNT),
    "imports": _list_of(str, "names of modules", 0),
    "outputs": _TEXT,
    "redo": _BOOL,
    "percent": _number(),
    "keep": _either(_BOOL, _list_of(bool, "these")),
    "experiment.name": _TEXT,
    "dataset.name": _TEXT,
    "dataset.recipe.epochs": _COUNT,
    "dataset.recipe.batch_size": _COUNT,
    "model.name": _TEXT,
    "trainer.processes": _COUNT,
    "trainer.precision": (lambda value: value in _PRECISIONS, "one of " + ", ".join(_PRECISIONS)),
    "trainer.workers": _NATURAL,
    "trainer.memory_gb": _number(0),
    **{f"trainer.{name}": _BOOL for name in ("tf32", "channels_last", "compile", "sync_batchnorm")},
    "experiment.images": _either(_COUNT, _NULL),
    **{f"experiment.{name}": _COUNT for name in ("batch", "max_batch", "steps", "tries", "together", "draws")},
    **{f"experiment.{name}": _BOOL for name in ("by_site", "repredict")},
    "experiment.keep_scores_gb": _number(0),
    "experiment.learning_rate": _number(0, above=True),
    "experiment.std": _number(0, above=True),
    "experiment.site": _either(_TEXT, _NULL),
    "experiment.neurons": _either(_COUNT, _NULL),
    "experiment.fill": _number(),
    "experiment.base_seed": _SEED,
    "experiment.sparsity_images": _NATURAL,
    "experiment.orders": _NAMES,
    **{f"experiment.{name}": _NUMBERS for name in ("sparsities", "percents", "road.percents")},
    "experiment.transforms": _list_where(_NODE, "mappings with a _target_"),
    "experiment.blocks": _either(_either(_NAMES, _NULL), _GROUPS),
    "experiment.reference": _PAIR,
    "experiment.rules": _list_where(_PAIR, "[rule, nodes]"),
    "experiment.measures": _NAMES,
    "experiment.road": _NODE,
    "experiment.road.images": _NATURAL,
    "experiment.road.noise": _number(0),
    "experiment.strip": _NODE,
    "experiment.strip.images": _NATURAL,
    "experiment.strip.blocks": _COUNT,
}
"""By name, for the values that a configuration has"""


def check_values(cfg: DictConfig) -> None:
    """Raises `InputError` for a value that its rule refuses, `UnknownNameError` for a setting that nothing reads.

    Hydra itself refuses unknown settings, unless they are added with a ``+``.
    """
    for group, file in (("experiment", cfg.experiment.get("name")), ("trainer", "default")):
        known = _settings(CONF / group / f"{file}.yaml", group)
        if group in cfg and known is not None:
            _check_known(cfg[group], known, group)
    for name, (valid, words) in RULES.items():
        where, _, last = name.rpartition(".")
        node = OmegaConf.select(cfg, where) if where else cfg
        if isinstance(node, DictConfig) and last in node and not valid(value := node[last]):
            raise InputError(f"{name} must be {words}; got {value!r}.")


@cache
def _settings(file: Path, group: str) -> DictConfig | None:
    """What ``file`` says about its group; None where there is no such file."""
    if not file.exists():
        return None
    settings = OmegaConf.load(file)
    assert isinstance(settings, DictConfig)
    return settings.get(group, settings)  # type: ignore[no-any-return]  # a file of global settings names it


def _check_known(found: DictConfig, known: DictConfig, prefix: str) -> None:
    for name in map(str, found):
        if name not in known:
            raise unknown_name("setting", f"{prefix}.{name}", [f"{prefix}.{one!s}" for one in known])
        value = None if OmegaConf.is_missing(found, name) else found[name]
        if isinstance(value, DictConfig) and isinstance(known[name], DictConfig):
            _check_known(value, known[name], f"{prefix}.{name}")
