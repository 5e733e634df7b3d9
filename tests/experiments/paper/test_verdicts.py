"""`python -m experiments.verdicts`: which folders make a column, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import cpath
from experiments import CONF
from experiments.engine.table import COLUMNS, read_table, write_table
from experiments.paper.verdicts import RULE, as_markdown, read_settings
from experiments.verdicts import main


def write(folder: Path, experiment: str, dataset: str, metric: str, half: float = 0.01, **values: float) -> None:
    """Results of one job: ``metric`` of methods at a sparsity of 90, with half the interval to each side."""
    rows = [
        (
            experiment,
            dataset,
            "resnet8_narrow",
            method,
            "sparsity",
            90.0,
            metric,
            value,
            value - half,
            value + half,
            9,
            0,
        )
        for method, value in values.items()
    ]
    folder.mkdir(parents=True)
    write_table(pd.DataFrame(rows, columns=list(COLUMNS)), folder / "results.csv")


def cells(markdown: str, start: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_column_for_each_dataset_and_model(tmp_path, capsys):
    write(tmp_path / "a", "path_analysis", "digits", "dead_share", half=1, neuron_mct=0, greedy=40, dgr=0.5)
    write(tmp_path / "b" / "deep", "path_analysis", "cifar10", "dead_share", half=1, neuron_mct=10, greedy=1.0)
    assert main([str(tmp_path), "--numbers"]) == 0
    printed = capsys.readouterr().out
    assert cells(printed, "the paper says") == ["digits, resnet8_narrow", "cifar10, resnet8_narrow"]
    no_dead = "Path analysis: The pathways of NeuronMCT and NeuronIntGrad contain no originally dead neuron"
    assert cells(printed, no_dead) == ["true by construction", "does not hold (n = 9 images)"]
    assert cells(printed, "Path analysis: Greedy pruning") == [
        "holds (n = 9 images)",
        "no difference (n = 9 images)",
    ]
    assert cells(printed, "Path analysis: Distillation guided routing selects") == [
        "no difference (n = 9 images)",
        "–",
    ]
    assert cells(printed, "Input degradation (LeRF), ROAR: NeuronIntGrad*") == ["not testable", "not testable"]
    # The error is a half of the interval over 1.96, and t at 97.5 % with eight degrees of freedom is 2.306.
    assert "  - Greedy 40 %, limit 1 %: difference 39 (37.8 to 40.2 points), n = 9 images: as claimed" in printed


def test_experiments_of_one_setting_share_a_column(tmp_path):
    write(tmp_path / "a", "path_analysis", "digits", "dead_share", neuron_mct=0)
    write(tmp_path / "b", "path_decoding", "digits", "probability_original", neuron_mct=0.5, greedy=0.1)
    (table,) = read_settings([tmp_path / "a", tmp_path / "b"]).values()
    printed = as_markdown({"both": table})
    assert cells(printed, "Path analysis: The pathways of NeuronMCT") == ["true by construction"]
    assert cells(printed, "Path decoding") == ["not decided (unpaired data)"]


def test_other_questions_are_not_the_paper_s_and_other_sites_stand_apart(tmp_path):
    for name, config in (
        ("usual", "sites: [relu]\nunit: neuron\nbaseline: zero\ntarget: predicted\n"),
        ("sites", "sites: [relu, 'classifier.2']\n"),
        ("heads", "sites: [attention]\nunit: head\n"),
        ("mean", "sites: [relu]\nbaseline: mean\n"),
    ):
        write(tmp_path / name, "path_analysis", "digits", "dead_share", neuron_mct=0)
        (tmp_path / name / "config.yaml").write_text(config)
    (dataset, *_) = read_settings([tmp_path / "usual"])
    assert list(read_settings([tmp_path])) == [f"{dataset} (sites relu, classifier.2)", dataset]
    with pytest.raises(cpath.InputError, match="none of these jobs is about neurons, against zero"):
        read_settings([tmp_path / "heads", tmp_path / "mean"])


def test_single_images_are_read_from_the_job_and_paired_even_where_two_share_a_name(tmp_path):
    write(tmp_path / "job", "path_analysis", "digits", "jaccard/neuron_intgrad", neuron_mct=0.5, greedy=0.2)
    (tmp_path / "job" / "config.yaml").write_text("activations: [relu, gelu]\n")
    images = ["a", "a", "b"]
    frame = pd.concat(
        pd.DataFrame({"image": images, "method": method, "metric": metric, "x_name": "sparsity", "x": 90.0}).assign(
            value=values
        )
        for method, metric, values in (
            ("neuron_mct", "jaccard/neuron_intgrad", [0.5, 0.6, 0.4]),
            ("greedy", "jaccard/neuron_intgrad", [0.2, 0.31, 0.09]),
            ("greedy", "site_jaccard/conv/dgr", [9.0, 9.0, 9.0]),
        )
    )
    frame.to_csv(tmp_path / "job" / "per_image.csv.gz", index=False)
    (results,) = read_settings([tmp_path]).values()
    assert results.sites == "relu, gelu"
    assert set(results.per_image.metric) == {"jaccard/neuron_intgrad"}
    printed = as_markdown({"one": results}, numbers=True)
    assert "**one** (sites: relu, gelu)" in printed
    assert (
        "  - with NeuronMCT 0.5, with Greedy 0.2: difference 0.3 (0.275 to 0.325), n = 3 images: as claimed"
        in printed
    )


@pytest.mark.parametrize("second", ["again", None])
def test_what_cannot_be_a_table_is_refused(tmp_path, capsys, second):
    if second:
        for name in ("first", second):
            write(tmp_path / name, "path_analysis", "digits", "dead_share", neuron_mct=0)
    assert main([str(tmp_path)]) == 2
    message = "path_analysis of digits, resnet8_narrow is there twice" if second else "no results.csv below"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("told_apart", [True, False])
def test_a_table_with_several_numbers_for_one_thing_is_refused(tmp_path, capsys, told_apart):
    write(tmp_path / "a", "path_analysis", "digits", "dead_share", neuron_mct=0)
    file = tmp_path / "a" / "results.csv"
    one = read_table(file)
    tables = [one.assign(variant=f"model.width={width}", over="images") for width in (4, 8)]
    table = pd.concat(tables if told_apart else [one, one.assign(value=0.5)])
    write_table(table, file)
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{file} has several numbers for dead_share of neuron_mct at sparsity 90" in said
    assert ("'model.width=4', 'model.width=8'" in said) == told_apart
    write_table(tables[0], file)  # a sweep over seeds alone
    assert main([str(tmp_path)]) == 0


def test_results_without_a_claim_are_refused(tmp_path, capsys):
    write(tmp_path / "a", "quadrature", "digits", "residual", neuron_intgrad=0.1)
    assert main([str(tmp_path)]) == 2
    assert "none of the paper's claims" in capsys.readouterr().err


def test_the_results_page_and_the_committed_verdicts_are_what_the_command_says_of_the_committed_results():
    root = CONF.parent
    settings = read_settings([root / "outputs" / "reference"])
    results = (root / "docs" / "results.md").read_text()
    assert f"\n\n{as_markdown(settings)}\n\n" in results
    assert RULE in " ".join(results.split())
    committed = (root / "outputs" / "reference" / "verdicts.md").read_text()
    again = (
        "make it again: python -m experiments.verdicts outputs/reference --numbers > outputs/reference/verdicts.md"
    )
    assert committed == as_markdown(settings, numbers=True) + "\n", again
