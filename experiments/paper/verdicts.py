"""Verdicts on the claims of the paper, in the words and numbers that docs/results.md and reports take from here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from cpath.analysis import Comparison, compare_means
from cpath.errors import InputError
from experiments.engine.config import default_of
from experiments.engine.job import CONFIG, RESULTS
from experiments.engine.measuring import PER_IMAGE, read_per_image
from experiments.engine.metric_entry import base_name
from experiments.engine.question import QUESTIONS
from experiments.engine.table import read_table
from experiments.paper.claims import CLAIMS, Claim
from experiments.paper.evidence import Contrast, Results, shown
from experiments.paper.remarks import remarks
from experiments.roar.table import CELLS

HOLDS, FAILS, NO_DIFFERENCE = "holds", "does not hold", "no difference"
NOT_DECIDED, NOT_TESTABLE, NOT_MEASURED = "not decided", "not testable", "not measured"
BY_CONSTRUCTION = "true by construction"
_PAPER_SITES = ["relu"]
WORDS = (FAILS, NO_DIFFERENCE, NOT_DECIDED, HOLDS, BY_CONSTRUCTION, NOT_TESTABLE, NOT_MEASURED)
"""Every word of a verdict, in the order of reports."""

RULE = (
    "Claims that compare methods are decided by differences that are paired by image (in ROAR by seed of the "
    "retraining and explained network), the others by the difference from a limit, each with an interval of "
    "Student's t; where there are several draws of random weights, or several explained networks, it covers these "
    "too. The comparisons of one claim are corrected together (Holm, 95 %). "
    f"“{HOLDS.capitalize()}”: every comparison is as claimed. “{FAILS.capitalize()}”: one is the other way round. "
    f"“{NO_DIFFERENCE.capitalize()}”: the interval of at least one covers 0, and none is the other way round. "
    f"“{NOT_DECIDED.capitalize()}”: the results lack the numbers of single images, or have one seed."
)
"""Rule by which verdicts are made, in words."""

COMPARED = (
    *("dead_share", "jaccard", "response_change", "probability_original"),
    *("affine_radius", "spearman_abs", "lerf_change", "cmd", "cmd_rise"),
)
"""Metrics of single images that claims look at; tables of single images are long."""


@dataclass(frozen=True)
class Decided:
    """A comparison with its outcome."""

    text: str
    """Its numbers and the outcome in words."""
    holds: bool | None
    """True if it is as claimed, False if it is the other way round, None if it is neither."""
    n: int
    """Number of images or seeds; 0 where nothing is decided."""
    over: str = "images"
    """Repetitions that are paired: images or seeds."""
    missing: str = ""
    """Data that are lacking to decide; empty where none is."""
    pair: str = ""
    """The two numbers alone."""


@dataclass(frozen=True)
class Verdict:
    """A claim with the comparisons that decide on it."""

    claim: Claim
    """The sentence of the paper."""
    comparisons: list[Decided]
    """Comparisons, decided together."""

    @property
    def word(self) -> str:
        """One of `WORDS`."""
        outcomes = [one.holds for one in self.comparisons]
        if self.claim.not_testable:
            return NOT_TESTABLE
        if not outcomes:
            return NOT_MEASURED
        if False in outcomes:
            return FAILS
        if self.claim.by_construction:
            return BY_CONSTRUCTION
        if any(one.missing for one in self.comparisons):
            return NOT_DECIDED
        return HOLDS if all(outcomes) else NO_DIFFERENCE

    @property
    def reason(self) -> str:
        """Reason for there being no measurement that decides; empty where there is one."""
        return self.claim.not_testable or self.claim.by_construction

    @property
    def summary(self) -> str:
        """The word, with how many comparisons are as claimed and how many images or seeds decided."""
        return f"{self.word} ({self.counts})" if self.counts else self.word

    @property
    def counts(self) -> str:
        """Numbers of comparisons as claimed, and of images or seeds that decided; empty where nothing did."""
        if self.word in (NOT_MEASURED, NOT_TESTABLE, BY_CONSTRUCTION):
            return ""
        total, held = len(self.comparisons), sum(one.holds is True for one in self.comparisons)
        decided = [one for one in self.comparisons if not one.missing]
        missing = dict.fromkeys(one.missing for one in self.comparisons if one.missing)
        if not decided:
            return ", ".join(missing)
        counts = sorted({one.n for one in decided})
        several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        as_claimed = "" if total == 1 else f"{held} of {total} as claimed, "
        lacking = f", {', '.join(missing)}" if self.word == NOT_DECIDED else ""
        return f"{as_claimed}n = {several} {decided[0].over}{lacking}"

    @property
    def decisive(self) -> Decided | None:
        """The comparison that stands for the verdict: the first with its outcome; None without any."""
        wanted = {HOLDS: True, FAILS: False, NO_DIFFERENCE: None}.get(self.word, True)
        return next((one for one in self.comparisons if one.holds is wanted), next(iter(self.comparisons), None))


def verdicts(results: Results) -> list[Verdict]:
    """Hold results against all claims.

    Args:
        results: numbers of one dataset and model.

    Returns:
        A verdict for each claim, in the order of the paper.
    """
    return [verdict_on(claim, results) for claim in CLAIMS]


def verdict_on(claim: Claim, results: Results) -> Verdict:
    """Hold results against one claim.

    Args:
        claim: sentence of the paper.
        results: numbers of one dataset and model.

    Returns:
        The verdict.
    """
    return Verdict(claim, _decide(claim, claim.contrasts(results)))


def _decide(claim: Claim, contrasts: list[Contrast]) -> list[Decided]:
    """Decide on the contrasts of a claim, as one family."""
    if claim.by_construction:
        return [_exact(contrast) for contrast in contrasts if contrast.sample is not None]
    samples = [contrast.sample for contrast in contrasts if contrast.sample is not None]
    found = iter(
        compare_means(
            [sample.mean for sample in samples],
            [sample.error for sample in samples],
            [sample.n for sample in samples],
            freedom=[sample.degrees for sample in samples],
        )
    )
    return [
        _lacking(contrast) if contrast.sample is None else _told(contrast, next(found)) for contrast in contrasts
    ]


def _lacking(contrast: Contrast) -> Decided:
    text = f"{contrast.words}: {contrast.reason}: {NOT_DECIDED}"
    return Decided(text, None, 0, contrast.over, contrast.reason, contrast.words)


def _told(contrast: Contrast, found: Comparison) -> Decided:
    """The outcome of a comparison in words."""
    n = f"n = {found.n}{f' of {contrast.total}' if contrast.total > found.n else ''} {contrast.over}"
    if math.isnan(found.low):
        text = f"{contrast.words}: {n}, no interval: {NOT_DECIDED}"
        return Decided(text, None, found.n, contrast.over, n, contrast.words)
    holds = None if found.decision == "no difference" else found.decision == contrast.claimed
    outcome = {True: "as claimed", False: "the other way round", None: "no difference"}[holds]
    unit = "points" if contrast.unit == "%" else contrast.unit
    interval = f"{shown(found.low)} to {shown(found.high, unit)}"
    words = f"{contrast.words}: difference {shown(found.difference)} ({interval}), {n}: {outcome}"
    return Decided(words, holds, found.n, contrast.over, pair=contrast.words)


def _exact(contrast: Contrast) -> Decided:
    """Outcome of a claim that holds by construction, for every image: a single exception is a fault."""
    sample = contrast.sample
    if sample is None or sample.n == 0:
        return Decided(contrast.words, None, 0, contrast.over, pair=contrast.words)
    holds = sample.mean == 0
    text = f"{contrast.words}, n = {sample.n} {contrast.over}"
    return Decided(text, holds, sample.n, contrast.over, pair=contrast.words)


def results_of(parts: Iterable[tuple[Path, pd.DataFrame]], *, images: bool = True) -> Results:
    """Put the results of several jobs of one dataset and model together.

    Args:
        parts: folder and tidy table of each job.
        images: whether the numbers of single images are read, which are many.

    Returns:
        Their numbers, with those of single images where a job left them.
    """
    tables, of_images, sites = [], [], dict[str, None]()
    cells = pd.DataFrame()
    for folder, table in parts:
        tables.append(table)
        if images and (folder / PER_IMAGE).exists():
            frame = read_per_image(folder)
            of_images.append(_with_distinct_images(frame[frame.metric.map(base_name).isin(COMPARED)]))
        if (folder / CELLS).exists():
            cells = pd.read_csv(folder / CELLS)
        sites |= dict.fromkeys(_sites_of(folder))
    results = Results(pd.concat(tables, ignore_index=True), sites=", ".join(sites), cells=cells)
    return replace(results, per_image=pd.concat(of_images, ignore_index=True)) if of_images else results


def _with_distinct_images(frame: pd.DataFrame) -> pd.DataFrame:
    """Number images that share a name, in the order in which every measure has them."""
    times = frame.groupby([name for name in frame.columns if name != "value"]).cumcount()
    return frame.assign(image=frame.image.where(times == 0, frame.image + " (" + (times + 1).astype(str) + ")"))


def _sites_of(folder: Path) -> list[str]:
    """Names of the sites that a job's configuration asks for."""
    if not (folder / CONFIG).exists():
        return []
    config = OmegaConf.load(folder / CONFIG)
    asked = OmegaConf.select(config, "sites") or OmegaConf.select(config, "activations") or []
    return [asked] if isinstance(asked, str) else [str(site) for site in asked]


def _asks_the_papers_question(folder: Path) -> bool:
    """Tell if a job's pathways are of neurons, against zero, for a class: what the claims are about."""
    if not (folder / CONFIG).exists():
        return True
    config = OmegaConf.load(folder / CONFIG)
    return all(OmegaConf.select(config, name) in (None, default_of(name)) for name in QUESTIONS)


def read_settings(folders: Iterable[Path]) -> dict[str, Results]:
    """Read the results below some folders that answer the paper's question: neurons, against zero, for a class.

    Args:
        folders: of jobs, or above them.

    Returns:
        Results by «dataset, model», with the sites where these are others than the ReLUs; each with all experiments
        of that setting.

    Raises:
        InputError: if there is none, or two of one experiment, or several numbers for one thing in a table.
    """
    tables: dict[str, dict[str, tuple[Path, pd.DataFrame]]] = {}
    for folder in folders:
        found = sorted(folder.rglob(RESULTS))
        if not found:
            raise InputError(f"no {RESULTS} below {folder}: name the folder of a job, or one that holds several.")
        for path in found:
            if not _asks_the_papers_question(path.parent):
                continue
            sites = _sites_of(path.parent) or _PAPER_SITES
            apart = "" if sites == _PAPER_SITES else f" (sites {', '.join(sites)})"
            for (dataset, model, experiment), part in read_table(path).groupby(
                ["dataset", "model", "experiment"], sort=False
            ):
                setting = tables.setdefault(f"{dataset}, {model}{apart}", {})
                if experiment in setting:
                    raise InputError(
                        f"{experiment} of {dataset}, {model}{apart} is there twice: {setting[experiment][0]} and "
                        f"{path}. Name the folders of those to look at."
                    )
                _check_unique(part, path)
                setting[experiment] = path, part
    if not tables:
        raise InputError(
            "none of these jobs is about neurons, against zero, for a class (unit, baseline, target), as "
            "the claims of the paper are."
        )
    return {
        name: results_of((path.parent, part) for path, part in parts.values()) for name, parts in tables.items()
    }


def _check_unique(table: pd.DataFrame, path: Path) -> None:
    """Refuse the table of a sweep over settings, which has several numbers for one thing."""
    repeated = table[table.duplicated(["method", "metric", "x_name", "x"])]
    if len(repeated):
        row = repeated.iloc[0]
        at = f" at {row.x_name} {row.x}" if row.x_name else ""
        variants = [f"'{name}'" for name in dict.fromkeys(table.get("variant", pd.Series(dtype=str)).dropna())]
        raise InputError(
            f"{path} has several numbers for {row.metric} of {row.method}{at}"
            + (f", of the variants {', '.join(variants)}" if variants else "")
            + ": name the folder of a single job."
        )


def as_markdown(settings: Mapping[str, Results], *, numbers: bool = False) -> str:
    """Hold settings against the claims.

    Args:
        settings: results by setting.
        numbers: whether those that decided are added below the table.

    Returns:
        A Markdown table with a line for each claim and a column for each setting.

    Raises:
        InputError: if no results have numbers for any claim.
    """
    found = {name: verdicts(results) for name, results in settings.items()}
    found = {name: column for name, column in found.items() if any(one.comparisons for one in column)}
    if not found:
        raise InputError("these results have numbers for none of the paper's claims.")
    lines = [" | ".join(["| the paper says", *found]) + " |", "| --- " * (1 + len(found)) + "|"]
    columns = list(found.values())
    for line in zip(*columns, strict=True):
        claim = line[0].claim
        cells = ["–" if one.word == NOT_MEASURED else one.summary for one in line]
        lines.append(" | ".join([f"| {claim.place}: {claim.text.removesuffix('.')}", *cells]) + " |")
    if numbers:
        lines += ["", *_reasons()]
        for name, column in found.items():
            sites = f" (sites: {settings[name].sites})" if settings[name].sites else ""
            lines += ["", f"**{name}**{sites}", ""]
            lines += [line for one in column if one.comparisons for line in _numbers(one)]
            lines += _remarks(settings[name])
    return "\n".join(lines)


def _remarks(results: Results) -> list[str]:
    """Lines on data that the tables behind the verdicts leave out, and on questions that they cannot decide."""
    found = [
        f"- {experiment.replace('_', ' ').capitalize()}: {sentence}"
        for experiment, sentences in remarks(results).items()
        for sentence in sentences
    ]
    return ["", "What these results leave out, or cannot tell:", "", *found] if found else []


def _reasons() -> list[str]:
    """Reasons for claims that no measurement decides."""
    return [
        f"- {claim.text} {(NOT_TESTABLE if claim.not_testable else BY_CONSTRUCTION).capitalize()}: "
        f"{claim.not_testable or claim.by_construction}."
        for claim in CLAIMS
        if claim.not_testable or claim.by_construction
    ]


def _numbers(verdict: Verdict) -> list[str]:
    return [
        f"- {verdict.claim.text} ({verdict.claim.source}) {verdict.claim.numbers}: {verdict.summary}.",
        *(f"  - {comparison.text}" for comparison in verdict.comparisons),
    ]
