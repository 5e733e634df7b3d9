"""The wandb dashboard: what it refers to exists, and nothing is sent without a key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from experiments import CONF, dashboard
from experiments.engine.job import run

ROOT = CONF.parent

# wandb-workspaces is written for an older pydantic.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")


def test_the_file_has_every_panel_and_groups_the_runs_by_method(tmp_path):
    assert _run(tmp_path, tmp_path)[0] == 0
    written = json.loads((tmp_path / "dashboard.json").read_text())
    assert (written["entity"], written["project"], written["name"]) == (None, "digits", "cpath")
    section = written["spec"]["section"]
    panels = {
        panel["config"]["chartTitle"]: panel["config"]
        for part in section["panelBankConfig"]["sections"]
        for panel in part["panels"]
    }
    titles = {curve.metric: curve.title for curve in sum(dashboard.CURVES.values(), ())}
    assert titles["dead_share"] == "dead share (%)"
    roar = panels[titles["roar_accuracy"]]
    assert (roar["xAxis"], roar["metricRegex"], roar["useMetricRegex"]) == (
        "percent_removed",
        "^roar_accuracy/",
        True,
    )
    assert panels[titles["jaccard"]]["xAxis"] == "sparsity"
    assert panels[titles["dead_share"]]["metricRegex"] == "^dead_share/"
    faithful = panels[titles["sufficiency"]]
    assert (faithful["xAxis"], faithful["metricRegex"], faithful["xLogScale"]) == ("keep", "^sufficiency/", True)
    assert panels[titles["necessity"]]["metricRegex"] == "^necessity/"
    assert panels["Maps"]["mediaKeys"] == ["figures/maps", "figures/overlays", "figures/sparsities_1"]
    assert panels["Faithfulness"]["mediaKeys"][0] == "figures/faithfulness_numbers"
    assert len(panels) == sum(map(len, dashboard.CURVES.values())) + 2
    assert [key["name"] for key in section["runSets"][0]["grouping"]] == ["methods.value"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--project", "a/b"], "--project must have 1 to 128 characters"),
        (["--entity", ""], "--entity must have 1 to 128 characters"),
        (["--name", " "], "--name: the dashboard needs a name"),
        (["--name", "\N{ROCKET}"], "wandb refuses the name"),
        (["--out", "."], "--out: . is a folder"),
        (["--out", "file/dashboard.json"], "--out: file/dashboard.json cannot be written"),
    ],
)
def test_wrong_input_is_refused_in_words(arguments, complaint, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert dashboard.main(arguments) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.rglob("*.json")) == []


# --- with a server, which is not wandb's ---


class _Server(ThreadingHTTPServer):
    """Answers what wandb asks before it takes a view, and keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.views: list[dict[str, str]] = []
        self.connections = 0

    def verify_request(self, request: object, client_address: object) -> bool:
        self.connections += 1
        return True


class _Answers(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data: dict[str, object] = {}
        if b"upsertView" in body:
            self.server.views.append(json.loads(body)["variables"])
            data = {"upsertView": {"view": {"id": "1", "name": "nw-one-v"}, "inserted": True}}
        elif b"viewer" in body:
            user = {"id": "1", "entity": "lab", "username": "me", "email": "me@lab", "flags": "{}"}
            data = {"viewer": {**user, "teams": {"edges": []}}}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def _run(
    home: Path, out: Path, server: _Server | None = None, key: str = "", *, save: bool = False
) -> tuple[int, str]:
    """As on a machine with nothing of wandb but, perhaps, the key of a server."""
    address = f"http://127.0.0.1:{server.server_address[1]}" if server else "http://127.0.0.1:9"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.dashboard",
            "--out",
            str(out / "dashboard.json"),
            "--project",
            "digits",
            *(["--save"] if save else []),
        ],
        cwd=ROOT,
        env={"HOME": str(home), "WANDB_BASE_URL": address, "WANDB_ERROR_REPORTING": "false"}
        | ({"WANDB_API_KEY": key} if key else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("where", ["nowhere", "variable", "netrc", "unasked"])
def test_it_is_saved_where_it_is_asked_for_with_a_key_and_nobody_is_called_otherwise(server, tmp_path, where):
    key = "a" * 40
    if where == "netrc":
        login = f"machine 127.0.0.1:{server.server_address[1]} login user password {key}\n"
        (tmp_path / ".netrc").write_text(login)
        (tmp_path / ".netrc").chmod(0o600)
    given = key if where in ("variable", "unasked") else ""
    code, said = _run(tmp_path, tmp_path, server, given, save=where != "unasked")
    assert code == (1 if where == "nowhere" else 0), said
    assert f"dashboard: {tmp_path}/dashboard.json" in said
    written = json.loads((tmp_path / "dashboard.json").read_text())
    if where in ("nowhere", "unasked"):
        assert server.connections == 0
        assert ("not saved to wandb: no API key here" in said) == (where == "nowhere")
        return
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("lab", "digits", "cpath")
    assert json.loads(view["spec"])["section"]["panelBankConfig"] == written["spec"]["section"]["panelBankConfig"]
    assert "lab/digits?nw=one" in said


@pytest.mark.slow
def test_a_server_that_is_not_there_is_said(tmp_path):
    code, said = _run(tmp_path, tmp_path, key="a" * 40, save=True)
    assert code == 1
    assert "error: not saved to wandb" in said
    assert (tmp_path / "dashboard.json").exists()


# --- what real runs log ---

_RUNS = {
    "path_analysis": [
        "method=random",
        "+method.neuron_mct={}",
        "sparsity=[80,90]",
        "experiment.images=8",
        "experiment.by_site=false",
    ],
    "detection": [
        "method=random",
        "sparsity=[80,90]",
        "experiment.counting.images=70",
        "experiment.counting.parts=2",
        "experiment.counting.only_correct=false",
        "experiment.held_out=40",
        "experiment.foreign.images=20",
        "experiment.foreign.names=[noise]",
        "experiment.attacks.names=[]",
    ],
    "faithfulness": ["method=random", "experiment.images=4", "experiment.keep=[1,10]"],
    "degradation": ["attribution=random", "experiment.images=8"],
    "saliency": ["attribution=neuron_mct", "experiment.images=2", "sparsity=[0,90]"],
    "roar": ["attribution=gradients", "percent=50"],
    "kar": ["attribution=gradients", "percent=50", "keep=true"],
}


@pytest.mark.slow
def test_every_panel_shows_keys_that_offline_runs_log(configure, trained, figures):
    for name, settings in _RUNS.items():
        experiment = name.replace("kar", "roar")
        run(configure(f"experiment={experiment}", "tracker=wandb", *settings))
    files = sorted((trained / "wandb" / "wandb").glob("offline-run-*/*.wandb"))
    runs = [_inspect(file) for file in files]
    assert len(runs) == len(_RUNS)
    rows = [set(record["history"]["item"]) for run in runs for record in run if record["type"] == "history"]
    for curve in sum(dashboard.CURVES.values(), ()):
        shown = [row for row in rows if any(re.search(curve.pattern, key) for key in row)]
        assert shown, f"no run logs {curve.pattern}"
        assert all(curve.x in row for row in shown), f"{curve.pattern} is logged without {curve.x}"
    logged = set().union(*rows)
    pictures = {key for keys in dashboard.IMAGES.values() for key in keys}
    assert {f"{key}._type" for key in pictures} <= logged
    updates = [[record["config"]["update"] for record in run if record["type"] == "config"] for run in runs]
    methods = [
        {key: value for update in run for key, value in update.items()}[dashboard.GROUPED_BY] for run in updates
    ]
    assert sorted(methods) == ["gradients"] * 2 + ["neuron_mct"] + ["random"] * 3 + ["random neuron_mct"]


def _inspect(record: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(record)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
