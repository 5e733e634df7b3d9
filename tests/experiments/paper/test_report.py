"""The report: its sections, tables and headings."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from experiments.engine.cache import write_text
from experiments.engine.job import CONFIG, RESULTS
from experiments.engine.progress import duration
from experiments.engine.table import Row, read_table, tidy_table, write_table
from experiments.metrics import METRICS
from experiments.paper.claims import CLAIMS
from experiments.paper.report import Section, write_report
from experiments.paper.stages import FinishedStage
from experiments.paper.verdicts import RULE, read_settings, verdicts
from experiments.report import main


def _stage(cfg: DictConfig, folder: Path, rows: list[Row]) -> FinishedStage:
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "captions.json").write_text("{}")
    made = {"status": "finished", "seconds": 90, "device": "CPU", "threads": 1, "seed": 0, "git": "abc"}
    (folder / "manifest.json").write_text(
        json.dumps({**made, "finished": "2030-01-01", "versions": {"torch": "9"}})
    )
    write_text(folder / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
    write_table(
        tidy_table(rows, experiment="any", dataset="digits", model="resnet8_narrow", seed=0), folder / RESULTS
    )
    return FinishedStage("any", folder, read_table(folder / RESULTS))


def test_ours_stand_beside_the_published_numbers_at_the_same_places(configure, tmp_path):
    rows = [
        Row("gradcam", "lerf_change", 0.001 * x, "percent_removed", float(x), 0.0, 1.0, 9) for x in range(1, 11)
    ]
    rows += [
        Row("gradcam", "lerf_change/published", 0.1 + 0.001 * x, "percent_removed", float(x)) for x in (1, 5, 10)
    ]
    stage = _stage(configure("experiment=degradation"), tmp_path / "job", rows)
    (found,) = Section(stage).published
    cells = {
        column: (cell["value"], cell["published"])
        for column, cell in zip(found["columns"], found["rows"][0]["cells"], strict=True)
    }
    assert cells == {"1": ("0.001", "0.101"), "5": ("0.005", "0.105"), "10": ("0.01", "0.11")}
    page = write_report(tmp_path, "a title", [stage]).read_text()
    assert "Beside the published numbers" in page
    assert "<b>0.105</b>" in page
    assert "90 s" in page or "2 min" in page


def test_without_published_numbers_no_table_claims_any(configure, tmp_path):
    rows = [Row("gradcam", "lerf_change", 0.1, "percent_removed", 1.0)]
    stage = _stage(configure("experiment=degradation"), tmp_path / "job", rows)
    assert Section(stage).published == []
    assert "Beside the published numbers" not in write_report(tmp_path, "a title", [stage]).read_text()


@pytest.mark.parametrize(
    ("experiment", "metrics", "title"),
    [
        ("roar_table", ["roar_accuracy"], "ROAR: retraining without the relevant pixels"),
        ("roar_table", ["kar_accuracy"], "KAR: retraining on the relevant pixels alone"),
        (
            "roar_table",
            ["kar_accuracy", "roar_accuracy"],
            "ROAR and KAR: retraining without the relevant pixels, and on them alone",
        ),
        ("degradation", ["lerf_change"], "Input degradation: are the removed pixels the relevant ones?"),
        ("path_analysis", ["jaccard"], "Critical pathways: overlap, dead neurons, responses"),
    ],
)
def test_the_heading_is_that_of_the_experiment_and_says_which_retrainings_there_are(
    configure, tmp_path, experiment, metrics, title
):
    rows = [Row("gbp", metric, 50.0, "percent", 90.0) for metric in metrics]
    stage = _stage(configure(f"experiment={experiment}"), tmp_path / "job", rows)
    assert Section(stage).title == title


def test_the_second_stage_of_an_experiment_has_its_network_in_the_heading(configure, tmp_path):
    rows = [Row("gbp", "lerf_change", 0.5, "percent_removed", 1.0)]
    stage = replace(_stage(configure("experiment=degradation"), tmp_path / "job", rows), name="lerf_resnet8_narrow")
    assert Section(stage).title == "Input degradation: are the removed pixels the relevant ones? (resnet8_narrow)"


def test_tables_say_unit_direction_and_meaning_of_their_metric(configure, tmp_path):
    rows = [Row("greedy", "class_kept", 87.5, "sparsity", 90.0), Row("greedy", "mine", 1.0, "sparsity", 90.0)]
    stage = _stage(configure(), tmp_path / "job", rows)
    found = {table["metric"]: table["meaning"] for table in Section(stage).tables}
    assert found == {"class kept (%), higher is better": METRICS["class_kept"].meaning, "mine": ""}
    page = write_report(tmp_path, "a title", [stage]).read_text()
    assert "<caption>mine</caption>" in page
    assert f'title="{METRICS["class_kept"].meaning}">class kept (%), higher is better</caption>' in page


def test_the_criteria_that_agree_are_those_of_the_table(configure, tmp_path):
    areas = {"lerf_area": (0.1, 0.2), "lerf_area_road": (0.2, 0.1), "kar_area": (60.0, 50.0)}
    rows = [
        Row(method, metric, value, "up_to_percent", 90.0)
        for metric, values in areas.items()
        for method, value in zip(("gbp", "gradcam"), values, strict=True)
    ]
    rows.append(Row("all", "rank_agreement/lerf/lerf_road", -1.0, "up_to_percent", 90.0, -1.0, -0.5, 9))
    page = write_report(tmp_path, "a title", [_stage(configure(), tmp_path / "job", rows)]).read_text()
    assert "LeRF, LeRF (ROAD), KAR: each puts the attributions into an order" in page
    section = page[page.index('<section id="agreement">') :]
    cells = re.findall(r"<td>([^<]*)<small>([^<]*)</small></td>", section[: section.index("</table>")])
    none = ("–", "")
    assert cells == [
        none,
        ("-1", "-1 to -0.5"),
        ("1", ""),
        ("-1", "-1 to -0.5"),
        none,
        ("-1", ""),
        ("1", ""),
        ("-1", ""),
        none,
    ]


def test_released_variants_stand_beside_the_definitions(configure, tmp_path):
    methods = ("greedy", "greedy_released", "random")
    rows = [Row(method, "dead_share", 0.5, "sparsity", 90.0) for method in methods]
    (found,) = Section(_stage(configure(), tmp_path / "job", rows)).variants
    assert [row["method"] for row in found["rows"]] == ["Greedy", "Greedy (released code)"]
    assert Section(_stage(configure(), tmp_path / "other", rows[::2])).variants == []


def test_equal_methods_are_one_row_and_remarks_stand_in_the_section(configure, tmp_path):
    values = {"gradcam": 0.3, "neuron_intgrad_star": 0.3, "gbp": 0.5}
    rows = [Row(name, "lerf_area", value, "up_to_percent", 10.0, n=9) for name, value in values.items()]
    stage = _stage(configure("experiment=degradation"), tmp_path / "job", rows)
    (found,) = Section(stage).tables
    assert [row["method"] for row in found["rows"]] == ["GradCAM = NeuronIntGrad*", "GBP"]
    page = write_report(tmp_path, "a title", [stage]).read_text()
    assert "<li>NeuronIntGrad* and GradCAM have equal numbers here, but for rounding" in page
    rows[1] = replace(rows[1], value=0.4)
    (found,) = Section(_stage(configure("experiment=degradation"), tmp_path / "other", rows)).tables
    assert len(found["rows"]) == 3


def test_the_verdicts_are_those_of_the_command_on_the_same_folders(configure, tmp_path):
    rows = [
        Row("greedy", "dead_share", 40.0, "sparsity", 90.0, 39.0, 41.0, 9),
        Row("neuron_mct", "jaccard/neuron_intgrad", 0.5, "sparsity", 90.0, 0.4, 0.6, 9),
        Row("greedy", "jaccard/neuron_intgrad", 0.1, "sparsity", 90.0, 0.0, 0.2, 9),
    ]
    page = write_report(tmp_path, "a title", [_stage(configure(), tmp_path / "job", rows)]).read_text()
    (results,) = read_settings([tmp_path / "job"]).values()
    found = verdicts(results)
    assert {one.word for one in found} >= {"holds", "not decided", "not testable", "not measured"}
    text = html.unescape(page)
    for one in found:
        assert one.claim.text in text
        assert one.reason in text
        assert one.claim.source in text
        assert not one.comparisons or f"{one.claim.numbers}: {one.summary}." in text
        assert all(comparison.text in text for comparison in one.comparisons)
    assert RULE in text
    assert "Sites of the pathways: relu." in text


def test_of_two_stages_of_one_experiment_the_first_decides_and_the_page_says_so(configure, tmp_path):
    stages = [
        _stage(
            configure(), tmp_path / name, [Row("greedy", "dead_share", share, "sparsity", 90.0, share, share, 9)]
        )
        for name, share in (("one", 40.0), ("two", 0.0))
    ]
    stages[1] = replace(stages[1], name="another")
    page = write_report(tmp_path, "a title", stages).read_text()
    assert "Greedy 40 %, limit 1 %" in page
    assert "Greedy 0 %, limit 1 %" not in page
    assert "without another." in page


def _dead_neurons(cfg: DictConfig, folder: Path) -> FinishedStage:
    return replace(
        _stage(cfg, folder, [Row("greedy", "dead_share", 40.0, "sparsity", 90.0, 39.0, 41.0, 9)]),
        name="path_analysis",
        command="python -m experiments experiment=path_analysis",
    )


def test_the_first_screen_has_every_claim_with_its_verdict_numbers_and_what_it_ran_on(configure, tmp_path):
    page = html.unescape(
        write_report(tmp_path, "Digits", [_dead_neurons(configure(), tmp_path / "job")]).read_text()
    )
    head = page[page.index("<header") : page.index("</header>")]
    rows = re.findall(r"<tr>\s*<td>(.*?)</td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>\s*</tr>", head, re.DOTALL)
    assert [re.sub("<.*?>", "", row[0]) for row in rows] == [claim.text for claim in CLAIMS]
    told = {
        claim.text: tuple(re.sub("<.*?>", "", cell) for cell in row[1:])
        for claim, row in zip(CLAIMS, rows, strict=True)
    }
    assert told["Greedy pruning selects originally dead neurons."] == (
        "holds",
        "dead share: Greedy 40 %, limit 1 % (n = 9 images)",
    )
    assert told["NeuronIntGrad* is the best of all."] == ("not testable", "–")
    assert "Of 1 claims that were put to the test 1 hold." in head
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", head))
    assert facts == {
        "Time": duration(90),
        "Network": "resnet8_narrow",
        "Data": "digits",
        "Machine": "CPU, threads: 1",
        "Code": "abc",
        "Finished": "2030-01-01",
    }


def test_numbers_lead_to_a_job_with_folder_command_and_commit(configure, tmp_path):
    stage = _dead_neurons(configure(), tmp_path / "job")
    page = write_report(tmp_path, "Digits", [stage]).read_text()
    targets = re.findall(r'href="#([^"]+)"', page)
    assert targets.count("job-path_analysis") >= 2, "of the claim and of the table"
    assert set(targets) <= set(re.findall(r'id="([^"]+)"', page)), "no link leads nowhere"
    (job,) = re.findall(r'<p class="job" id="job-path_analysis">(.*?)</p>', page)
    assert re.findall("<code>(.*?)</code>", job) == [str(stage.folder), stage.command, "abc"]


def test_figures_say_their_result_and_are_shown_first_by_how_much_they_tell(configure, tmp_path):
    stage = _dead_neurons(configure("experiment=path_analysis"), tmp_path / "job")
    folder = stage.folder / "figures"
    for name in ("dead_share", "overlap"):
        Image.new("RGB", (300, 60)).save(folder / f"{name}.png")
    (folder / "captions.json").write_text(json.dumps({"dead_share": "Shares.", "overlap": "Overlaps."}))
    page = write_report(tmp_path, "Digits", [stage]).read_text()
    assert "At 90 % pruned: The share of dead neurons is 40 % for Greedy." in page
    assert page.count("<figure>") == 3
    assert "Overlaps." in page[: page.index("</header>")]


def test_the_command_makes_the_report_of_finished_jobs(configure, tmp_path, capsys):
    _stage(configure("experiment=degradation"), tmp_path / "jobs" / "one", [Row("gbp", "lerf_change", 0.5)])
    _stage(configure("experiment=train"), tmp_path / "jobs" / "two", [Row("training", "test_accuracy", 90.0)])
    assert main([str(tmp_path / "jobs"), "--to", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'page' / 'report.html'}\n"
    page = (tmp_path / "page" / "report.html").read_text()
    assert "digits, resnet8_narrow." in page
    assert re.findall(r'<section id="(\w+)">', page)[:2] == ["any", "any_2"]
    assert main([str(tmp_path / "page")]) == 2
    assert "there is no finished job below" in capsys.readouterr().err
