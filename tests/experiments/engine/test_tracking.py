"""Trackers: a wandb run for each job, as the configuration, or else the user's environment, says."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import pytest

from cpath.errors import InputError, UnknownNameError
from experiments.engine import tracking
from experiments.engine.config import Config, parse
from experiments.engine.job import run
from experiments.engine.table import Row, tidy_table
from experiments.engine.tracking import WandbTracker
from experiments.path_analysis import PathAnalysis

FOLDERS = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")


class _Wandb(ModuleType):
    """Stands for wandb: keeps what runs are opened with, and the environment that they see."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.opened: list[dict[str, Any]] = []
        self.environments: list[dict[str, str]] = []
        self.ended: list[int] = []

    def init(self, **settings: Any) -> _Wandb:
        self.opened.append(settings)
        self.environments.append({name: value for name, value in os.environ.items() if name.startswith("WANDB_")})
        return self

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> _Wandb:
    """Stands for wandb, with nothing of it in the environment."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    fake = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def config(configure) -> Config:
    return parse(configure("experiment=path_analysis"))


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sweep."""
    monkeypatch.setattr(tracking, "_of_several", lambda: True)
    monkeypatch.setattr(tracking, "_sweep", lambda: "path_analysis-1234abcd")


def _track(tracker: WandbTracker, config: Config, tmp_path) -> None:
    tracker.start(config, tmp_path / "digits-resnet8_narrow-0")
    tracker.finish(failed=False)


def test_a_run_is_offline_and_below_the_outputs_unless_something_else_is_said(wandb, config, tmp_path):
    _track(WandbTracker(), config, tmp_path)
    (opened,) = wandb.opened
    assert opened.pop("config")["seed"] == 0
    base = str(tmp_path / "wandb")
    assert opened == {
        "project": "cpath",
        "group": None,
        "job_type": "path_analysis",
        "name": "digits-resnet8_narrow-0",
        "dir": base,
        "mode": "offline",
    }
    assert wandb.environments == [
        {**dict.fromkeys(FOLDERS, base), "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    ]
    assert wandb.ended == [0]
    assert not any(name.startswith("WANDB_") for name in os.environ), "the environment is as it was"


def test_jobs_of_one_process_with_other_outputs_do_not_share_their_folders(wandb, configure, tmp_path):
    for name in ("first", "second"):
        _track(WandbTracker(), parse(configure(f"outputs={tmp_path / name}")), tmp_path)
    assert [opened["dir"] for opened in wandb.opened] == [
        str(tmp_path / name / "wandb") for name in ("first", "second")
    ]


VARIABLES = {
    "WANDB_PROJECT": ("project", "theirs"),
    "WANDB_RUN_GROUP": ("group", "theirs"),
    "WANDB_JOB_TYPE": ("job_type", "theirs"),
    "WANDB_NAME": ("name", "theirs"),
    "WANDB_DIR": ("dir", "/tmp/theirs"),
    "WANDB_MODE": ("mode", "online"),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_users_variables_are_respected(wandb, config, tmp_path, monkeypatch, variable):
    setting, value = VARIABLES[variable]
    monkeypatch.setenv(variable, value)
    _track(WandbTracker(), config, tmp_path)
    assert wandb.opened[0][setting] == value
    assert os.environ[variable] == value


@pytest.mark.parametrize(
    "variable",
    [
        *FOLDERS,
        "WANDB_SILENT",
        "WANDB_ERROR_REPORTING",
        "WANDB_ENTITY",
        "WANDB_TAGS",
        "WANDB_API_KEY",
        "WANDB_NOTES",
    ],
)
def test_what_wandb_reads_itself_stays_as_the_user_set_it(wandb, config, tmp_path, monkeypatch, several, variable):
    monkeypatch.setenv(variable, "/tmp/theirs")
    _track(WandbTracker(), config, tmp_path)
    assert wandb.environments[0][variable] == "/tmp/theirs"
    assert os.environ[variable] == "/tmp/theirs"


def test_the_configuration_has_the_last_word(wandb, configure, tmp_path, monkeypatch):
    for variable, value in {
        "WANDB_MODE": "disabled",
        "WANDB_PROJECT": "theirs",
        "WANDB_RUN_GROUP": "theirs",
    }.items():
        monkeypatch.setenv(variable, value)
    cfg = configure("tracker=wandb", "tracker.mode=online", "tracker.project=mine", "tracker.group=our")
    config = parse(cfg)
    from hydra.utils import instantiate

    _track(instantiate(config.tracker), config, tmp_path)
    (opened,) = wandb.opened
    assert (opened["mode"], opened["project"], opened["group"]) == ("online", "mine", "our")


@pytest.mark.parametrize(("named", "mode"), [("dryrun", "offline"), ("run", "online"), ("offline", "offline")])
def test_earlier_names_of_modes_are_known(wandb, config, tmp_path, monkeypatch, named, mode):
    monkeypatch.setenv("WANDB_MODE", named)
    _track(WandbTracker(), config, tmp_path)
    assert wandb.opened[0]["mode"] == mode
    assert ("WANDB_SILENT" in wandb.environments[0]) == (mode == "offline")


def test_an_unknown_mode_is_refused_and_its_source_named(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(UnknownNameError, match=r"of WANDB_MODE in the environment.*'offlin'.*Did you mean offline"):
        WandbTracker()
    with pytest.raises(UnknownNameError, match=r"unknown wandb mode 'onlin'\.") as raised:
        WandbTracker(mode="onlin")
    assert "WANDB_MODE" not in str(raised.value)


def test_disabled_is_a_job_without_a_run(wandb, configure, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(PathAnalysis, "run", lambda experiment, job: [Row("random", "class_kept", 1.0)])
    monkeypatch.setattr(PathAnalysis, "figures", lambda experiment, table: [])
    assert run(configure("experiment=path_analysis", "tracker=wandb")).value.tolist() == [1.0]
    assert wandb.opened == []
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize("variable", ["WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME"])
def test_of_several_jobs_each_has_a_run_of_its_own(wandb, config, tmp_path, monkeypatch, several, caplog, variable):
    monkeypatch.setenv(variable, "theirs")
    for _ in range(2):
        _track(WandbTracker(), config, tmp_path)
    assert [variable in seen for seen in wandb.environments] == [False, False]
    assert [opened["name"] for opened in wandb.opened] == ["digits-resnet8_narrow-0"] * 2
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"ignored: {variable} in the environment")


@pytest.mark.parametrize("variable", ["WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME"])
def test_a_job_alone_has_the_run_that_the_user_named(wandb, config, tmp_path, monkeypatch, caplog, variable):
    monkeypatch.setenv(variable, "theirs")
    _track(WandbTracker(), config, tmp_path)
    assert wandb.environments[0][variable] == "theirs"
    assert not caplog.records


def test_the_jobs_of_a_sweep_are_a_group(wandb, config, tmp_path, several):
    _track(WandbTracker(), config, tmp_path)
    assert wandb.opened[0]["group"] == "path_analysis-1234abcd"


def test_a_failed_job_ends_its_run_as_failed(wandb, configure, monkeypatch):
    def fails(experiment, job):
        raise InputError("this one fails on purpose")

    monkeypatch.setattr(PathAnalysis, "run", fails)
    with pytest.raises(InputError, match="on purpose"):
        run(configure("experiment=path_analysis", "tracker=wandb"))
    assert wandb.ended == [1]
    assert "WANDB_DIR" not in os.environ


def test_results_of_a_job_without_a_run_go_nowhere(tmp_path):
    table = tidy_table([Row("random", "class_kept", 1.0)], experiment="x", dataset="y", model="z", seed=0)
    tracker = WandbTracker(mode="disabled")
    tracker.results(table, tmp_path)
    tracker.finish(failed=False)
    assert list(tmp_path.iterdir()) == []
