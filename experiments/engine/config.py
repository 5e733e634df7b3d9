"""The configuration of a job: composed by Hydra, then checked and typed as a whole before any work."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field, InstanceOf, PrivateAttr, ValidationError

import cpath
from cpath.errors import CpathError, InputError, UnknownNameError, unknown_name
from experiments import CONF
from experiments.engine.digests import content_digest, named_code, source_digest
from experiments.engine.fields import NOT_KEYED, Count, Gigabytes, Natural, Seed, Text, keyed
from experiments.engine.settings import ExperimentSettings, Settings
from experiments.engine.table import PseudoMethod
from experiments.engine.unit import Unit

RENAMED = {
    "activations": "sites",
    "dataset.recipe": "recipe",
    "experiment.sparsities": "sparsity' or, of a benchmark, 'experiment.pathways",
    "experiment.percents": "percent",
    "experiment.road.percents": "experiment.road.percent",
    "method.greedy_published": "method.greedy_released",
    "method.neuron_intgrad_published": "method.neuron_intgrad_released",
}
"""Settings of earlier versions, and what they are called now."""
_MISSING = "is missing: give it a value"


class Trainer(Settings):
    """Arithmetic and placement of a training: ``trainer.…``."""

    processes: Count
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"]
    tf32: bool
    channels_last: bool
    compile: bool
    workers: Annotated[Natural, NOT_KEYED]
    memory_gb: Gigabytes
    sync_batchnorm: bool


class Recipe(Settings):
    """Schedule of a training: ``recipe.…``. Nodes with a ``_target_`` are called with what stands beside it."""

    epochs: Count
    batch_size: Count
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None = None
    loss: dict[str, Any]
    augmentation: dict[str, Any] | None = None


Names = list[Text]


class Config(Settings):
    """Everything that a job is told, typed and checked."""

    experiment: InstanceOf[ExperimentSettings]
    dataset: dict[str, Any]
    recipe: Recipe | None = None
    model: dict[str, Any]
    method: dict[str, dict[str, Any] | None]
    attribution: dict[str, dict[str, Any] | None]
    metric: dict[str, dict[str, Any]]
    trainer: Trainer
    tracker: Annotated[dict[str, Any], NOT_KEYED]
    paper: Annotated[dict[str, Any] | None, NOT_KEYED] = None
    seed: Seed
    sites: Annotated[Names, Field(min_length=1)]
    unit: Unit
    baseline: Literal["zero", "mean", "other_class"]
    baseline_inputs: Count
    target: Natural | Text
    checkpoint: Text | None
    device: Annotated[Text, NOT_KEYED]
    dtype: Literal["float32", "float64"]
    threads: Annotated[Count | Literal["auto"], NOT_KEYED]
    imports: Names
    outputs: Annotated[Text, NOT_KEYED]
    redo: Annotated[bool, NOT_KEYED]
    sparsity: Annotated[Any, NOT_KEYED] = None
    percent: Annotated[Any, NOT_KEYED] = None
    keep: Annotated[Any, NOT_KEYED] = None

    _composed: DictConfig = PrivateAttr()

    @property
    def composed(self) -> DictConfig:
        """The configuration as Hydra composed it, with its references."""
        return self._composed

    @property
    def dataset_name(self) -> str:
        """Name of the dataset in results."""
        return str(self.dataset["name"])

    @property
    def model_name(self) -> str:
        """Name of the model in results."""
        return str(self.model["name"])

    def changed(self, **values: Any) -> Config:
        """Copy the configuration with other values, and all that refers to them.

        Args:
            values: new values of settings at the root, by name.

        Returns:
            The new configuration, checked like any other.

        Raises:
            InputError: if a value is unusable.
        """
        cfg = self._composed.copy()
        for name, value in values.items():
            OmegaConf.update(cfg, name, value, force_add=True)
        return parse(cfg)

    def identity(self) -> dict[str, Any]:
        """Collect everything that determines the results of a job and can be known before any of it is made.

        Returns:
            Plain containers of settings, code digests and cpath's version, for a key of the cache.
        """
        found = keyed(self)
        plain: Any = OmegaConf.to_container(self._composed, resolve=True)
        for group in {"method", "attribution", "metric"} - set(self.experiment.explains_with):
            del found[group], plain[group]
        if self.experiment.measures_machine:
            found |= {"device": self.device, "threads": self.threads}
        if self.checkpoint is not None:
            found["checkpoint"] = content_digest(self.checkpoint)
        code = {name: source_digest(name) for name in self.imports} | named_code(plain)
        if isinstance(self.target, str) and "." in self.target:  # a function of the output
            code |= named_code({"_target_": self.target})
        return {**found, "cpath": cpath.__version__, "code": code}


def default_of(setting: str) -> Any:
    """Read the value that a setting has unless the command line, or a file of a group, gives another.

    Args:
        setting: dotted name of a setting in ``conf/config.yaml``.

    Returns:
        Its value there; None where there is none.

    Example:
        >>> from experiments.engine.config import default_of
        >>> default_of("seed")
        0
    """
    return OmegaConf.select(_config_file(), setting)


@cache
def _config_file() -> Any:
    """Content of ``conf/config.yaml``, which nobody may change."""
    content = OmegaConf.load(CONF / "config.yaml")
    OmegaConf.set_readonly(content, True)
    return content


def import_modules(modules: Iterable[str]) -> None:
    """Import the user's modules, which register methods, attributions and experiments.

    Args:
        modules: names of modules, such as ``my_package.methods``.

    Raises:
        InputError: if one of them cannot be imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the module raises
            problem = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise InputError(f"imports: cannot import '{module}': {problem}") from error


def parse(cfg: DictConfig) -> Config:
    """Check a composed configuration and give it types.

    Args:
        cfg: as Hydra composes it, without the node ``hydra``.

    Returns:
        The typed configuration.

    Raises:
        InputError: if a value is unusable; it names every such setting.
        UnknownNameError: if a setting is added that nothing reads.
    """
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:  # what '${…}' refers to is not there, or was taken away with '~'
        problem = str(error).partition("\n")[0]
        raise InputError(f"{error.full_key} cannot be read: {problem}.") from error
    plain.pop("hydra", None)
    for old in RENAMED:
        if (found := _nested(plain, old.split("."))) is not None:
            first = next(iter(found), "") if isinstance(found, Mapping) else ""
            raise InputError(renamed(f"{old}.{first}" if first else old) or "")
    if isinstance(plain.get("imports"), list):
        import_modules(map(str, plain["imports"]))
    plain["experiment"] = experiment_of(plain.get("experiment"))
    if isinstance(plain.get("sites"), str):
        plain["sites"] = [plain["sites"]]
    config = validated(Config, plain, "")
    _check_names(config)
    config._composed = cfg
    return config


def _nested(node: Any, path: list[str]) -> Any:
    """Value at a path in nested mappings; None where there is none."""
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def experiment_of(node: Any) -> ExperimentSettings:
    """Make the experiment that a node of the configuration names and sets.

    Args:
        node: settings, and under ``_target_`` the class.

    Returns:
        The experiment.

    Raises:
        InputError: if there is no such class, or a setting is unusable.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise InputError("experiment needs a name: experiment=path_analysis, for example.")
    cls = _experiment_class(target)
    return validated(cls, {name: value for name, value in node.items() if name != "_target_"}, "experiment")


def _experiment_class(target: str) -> type[ExperimentSettings]:
    try:
        cls = get_class(target)
    except Exception as error:  # of Hydra, or of the user's module
        raise InputError(f"experiment: cannot find {target}: {error.__cause__ or error}") from error
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise InputError(f"experiment: {target} must define {missing}.")
    if not issubclass(cls, ExperimentSettings):
        raise InputError(f"experiment: {target} must be a subclass of experiments.engine.experiment.Experiment.")
    return cls


def _check_names(config: Config) -> None:
    for group, names in (("method", config.method), ("attribution", config.attribution)):
        for name in names:
            if name in list(PseudoMethod):
                raise InputError(f"{group}: tables use the name '{name}' for something else; choose another.")
    for group, node in (("dataset", config.dataset), ("model", config.model)):
        if not isinstance(node.get("name"), str) or not node["name"]:
            raise InputError(f"{group}.name must be text; got {node.get('name')!r}.")


S = TypeVar("S", bound=BaseModel)


def validated(cls: type[S], values: Mapping[str, Any], prefix: str) -> S:
    """Make typed settings.

    Args:
        cls: class of the settings.
        values: what they are made of.
        prefix: name of the node that they stand for, for messages.

    Returns:
        The settings.

    Raises:
        InputError: if a value is unusable; it names every such setting.
        UnknownNameError: if there is no such setting.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise _explained(error, cls, prefix) from None


def _explained(error: ValidationError, cls: type[BaseModel], prefix: str) -> CpathError:
    problems: dict[str, tuple[list[str], Any]] = {}
    for problem in error.errors():
        place = [prefix] if prefix else []
        # A union names its alternatives after the setting; the message says what they want.
        named = _setting(cls, problem["loc"])
        name = ".".join([*place, *named])
        if problem["type"] == "extra_forbidden":
            if (now := renamed(name) or _removed(cls, name)) is not None:
                return InputError(now)
            where = ".".join([*place, *named[:-1]])
            known = [f"{where}.{field}" if where else field for field in _fields(cls, named[:-1])]
            return unknown_setting(name, known)
        problems.setdefault(name, ([], problem["input"]))[0].append(_words(problem))
    lines = []
    for name, (words, value) in problems.items():
        said = " or ".join(dict.fromkeys(words))
        line = f"{name} {said}" if said.startswith(("must", "is ")) else f"{name}: {said}"
        whole = said == _MISSING or "; got " in line  # what is there instead of a missing value is all the others
        lines.append(f"{line}." if whole else f"{line}; got {_shown(value)}.")
    return InputError("\n".join(lines))


def _setting(cls: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The part of an error's location that names settings and places in lists."""
    named: list[str] = []
    at: Any = cls
    for part in location:
        if isinstance(at, type) and issubclass(at, BaseModel):
            named.append(str(part))
            field = at.model_fields.get(str(part))
            at = None if field is None else _model_in(field.annotation)
        elif isinstance(part, int):
            named[-1] += f"[{part}]"
        elif at is None:
            break
    return named


def _fields(cls: type[BaseModel], path: list[str]) -> list[str]:
    at: Any = cls
    for part in path:
        at = _model_in(at.model_fields[part].annotation)
    return list(at.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _words(problem: Any) -> str:
    message = str(problem["msg"])
    if problem["type"] == "missing":
        return _MISSING
    if problem["type"] in ("value_error", "assertion_error"):
        return message.partition(", ")[2].rstrip(".")
    message = message.partition(" after validation")[0]
    for beginning in ("Input", "List", "Value", "String"):
        message = message.removeprefix(f"{beginning} should ")
    return f"must {message}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}…"


def renamed(name: str) -> str | None:
    """Message for a setting of an earlier version.

    Args:
        name: dotted name of a setting.

    Returns:
        A sentence with its name of today; None if it is no setting of an earlier version.
    """
    for old, new in RENAMED.items():
        if name == old or name.startswith(f"{old}."):
            return f"the setting '{name}' is called '{new}{name.removeprefix(old)}' now."
    return None


def removed(name: str, experiment: str) -> str | None:
    """Message for a setting that an experiment had in an earlier version.

    Args:
        name: dotted name of a setting.
        experiment: class of the experiment, as under ``_target_``.

    Returns:
        A sentence on what there is instead; None if the experiment never had the setting.

    Raises:
        InputError: if there is no such class.
    """
    return _removed(_experiment_class(experiment), name)


def _removed(cls: type[BaseModel], name: str) -> str | None:
    instead = cls.removed.get(name.removeprefix("experiment.")) if issubclass(cls, ExperimentSettings) else None
    return None if instead is None else f"there is no setting '{name}' any more: {instead}."


def unknown_setting(name: str, known: Collection[str]) -> UnknownNameError:
    """Make the error for a setting that does not exist.

    Args:
        name: dotted name of the setting.
        known: dotted names of all settings beside it.

    Returns:
        The error, to be raised.
    """
    if not known:
        return UnknownNameError(f"unknown setting '{name}': '{name.rpartition('.')[0]}' has no settings.")
    return unknown_name("setting", name, known)
