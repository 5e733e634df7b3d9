"""The explorer in a real browser: what it shows is what the library says, and nothing leaves the page."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cpath
from cpath.viz.explorer import Plan, Shown, write_page
from tests.viz.explorer_page import STOPS, images, network

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt install chromium)"),
    pytest.mark.filterwarnings("ignore::cpath.EmptyPathwayWarning"),
]

METHODS = ("neuron_mct", "random", "active")  # in the page's order
NAMES = ("first", "an input with a name that is longer than its picture is wide")
CLASSES = ("a", "b", "c", "a class with a very long name, as those of ImageNet are", "e", "f", "g")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = cpath.explore(
        network(),
        images(2),
        METHODS,
        sparsity=STOPS,
        unit=["neuron", "channel"],
        names=NAMES,
        classes=CLASSES,
        true=[1, 2],
        channels=3,
    )
    return made.save(tmp_path_factory.mktemp("explorer") / "page.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end nothing must have been logged, failed or asked of any host."""
    said: list[str] = []
    contexts = []

    def open_page(width: int = 1200, part: str = "", at: Path = file, **settings: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 844}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        address = at.as_uri()
        page.on("request", lambda request: said.append(request.url) if _leaves(request.url, address) else None)
        page.goto(f"{address}#{part}")
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def _leaves(url: str, address: str) -> bool:
    return not url.startswith("data:") and url.partition("#")[0] != address


def _after(page: Any, act: Callable[[], Any]) -> None:
    """Does something, and waits until the page has followed."""
    before = page.get_attribute("body", "data-ready")
    act()
    page.wait_for_function("before => document.body.dataset.ready !== before", arg=before)


def _number(page: Any, selector: str) -> float:
    return float(page.get_attribute(selector, "data-value"))


def _pathway(method: str, stop: int, unit: str = "neuron") -> cpath.Pathway:
    return cpath.find_pathway(network(), images(2), method, STOPS[stop], unit=unit)


def _probabilities(pathway: cpath.Pathway) -> torch.Tensor:
    with pathway.restrict(model := network()), torch.no_grad():
        return model(images(2)).double().softmax(1)


def test_the_slider_changes_every_number_to_that_of_the_library(opened):
    page = opened(part="stop=0&input=1&method=0&site=1")
    scores = cpath.score(network(), images(2))
    faith = cpath.faithfulness(network(), images(2), scores, keep=[100 - stop for stop in reversed(STOPS)])
    seen = set()
    for stop in range(len(STOPS)):
        pathway, random = _pathway("neuron_mct", stop), _pathway("random", stop)
        assert page.input_value("#sparsity") == str(stop)
        assert page.inner_text("#pruned") == f"{STOPS[stop]} % of the neurons"
        kept = int(pathway.flat[1].sum())
        assert _number(page, "#kept") == kept
        assert page.inner_text("#kept") == f"{kept:,}"
        place = len(STOPS) - 1 - stop
        assert _number(page, "#sufficiency-a") == pytest.approx(
            float(faith.sufficiency[1, place]), rel=1e-4, abs=1e-6
        )
        assert _number(page, "#necessity-a") == pytest.approx(float(faith.necessity[1, place]), rel=1e-4, abs=1e-6)
        shown = page.inner_text("#sufficiency-a")
        assert float(shown.replace("−", "-")) == pytest.approx(float(faith.sufficiency[1, place]), abs=0.0051)
        restricted = _probabilities(pathway)[1]
        for label in page.eval_on_selector_all("#answers .a", "bars => bars.map(bar => bar.dataset.name.slice(2))"):
            value = _number(page, f'[data-name="a-{label}"]')
            assert value == pytest.approx(100 * float(restricted[int(label)]), rel=1e-5)
        assert page.locator(f'[data-name="a-{int(restricted.argmax())}"]').count() == 1
        overlap = _number(page, '[data-name="random"]')
        assert overlap == pytest.approx(float(pathway.jaccard(random)[1]))
        shares = [
            float(value)
            for value in page.eval_on_selector_all("#depth .bar", "bars => bars.map(bar => bar.dataset.value)")
        ]
        assert shares == pytest.approx([100 * float(mask[1].float().mean()) for mask in pathway.masks.values()])
        assert _number(page, "#site-kept-a") == int(pathway.masks["3"][1].sum())
        tile = page.locator("#channels button").first
        assert tile.locator("b").inner_text() == f"channel {int(scores.values['3'][1].sum((1, 2)).argmax())}"
        seen.add(
            (
                kept,
                shown,
                overlap,
                tuple(shares),
                page.locator("#map canvas").evaluate("picture => picture.toDataURL()"),
            )
        )
        if stop + 1 < len(STOPS):
            page.focus("#sparsity")
            _after(page, lambda: page.keyboard.press("ArrowRight"))
    assert [len(set(column)) for column in zip(*seen, strict=True)] == [len(STOPS)] * 5


def test_what_is_under_the_pointer_is_told(opened):
    page = opened(part="site=1&stop=1&method=0")
    counts = _pathway("neuron_mct", 1).masks["3"][0].sum(0)
    stage = page.locator("#where .stage")
    stage.scroll_into_view_if_needed()
    area = stage.bounding_box()
    for row, column in ((0, 0), (2, 3)):
        page.mouse.move(
            area["x"] + (column + 0.5) * area["width"] / 4, area["y"] + (row + 0.5) * area["height"] / 4
        )
        count = int(counts[row, column])
        told = page.inner_text("#where .readout")
        assert told.startswith(f"row {row + 1}, column {column + 1}: {count} of 6 kept")
    page.mouse.move(0, 0)
    assert "Point at a position" in page.inner_text("#where .readout")


_OPACITY = """picture => {
  const {data} = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
  return Array.from(data).filter((_, i) => i % 4 === 3);
}"""


def test_inputs_methods_units_sites_and_channels_are_picked_by_pointer(opened):
    page = opened()
    _after(page, lambda: page.click("#inputs label:nth-child(2)"))
    _after(page, lambda: page.click("#methods label:nth-child(2)"))
    _after(page, lambda: page.click("#units label:nth-child(2)"))
    assert _number(page, "#kept") == int(_pathway("random", 2, "channel").flat[1].sum())
    assert page.locator("#where canvas").count() == 0
    assert "has no place" in page.inner_text("#where-note")
    _after(page, lambda: page.click("#units label:nth-child(1)"))
    _after(page, lambda: page.select_option("#site", "0"))
    _after(page, lambda: page.click("#channels button:nth-child(2)"))
    number = int(page.locator("#channels b").nth(1).inner_text().split()[1])
    mask = _pathway("random", 2).masks["1"][1, number]
    assert page.inner_text("#where figcaption").startswith(
        f"Random, channel {number}: {int(mask.sum())} of 64 kept"
    )
    marked = page.locator("#where canvas").evaluate(_OPACITY)
    np.testing.assert_array_equal(np.array(marked).reshape(8, 8) > 0, mask)
    _after(page, lambda: page.click("#all-channels"))
    assert page.inner_text("#where figcaption").startswith("Random, neurons kept at each position")
    assert not page.is_visible("#all-channels")
    _after(page, lambda: page.click("#channels button:nth-child(2)"))
    bars = page.locator("#depth .pick")
    width = bars.bounding_box()["width"]
    _after(page, lambda: bars.click(position={"x": 0.9 * width, "y": 50}))
    assert page.input_value("#site") == "2"
    assert page.locator("#channels button[aria-pressed=true]").count() == 0


def test_another_method_is_compared_side_by_side(opened):
    page = opened(part="method=0&site=1&stop=2")
    _after(page, lambda: page.click("#overlap button:nth-child(1)"))
    assert page.input_value("#compare") == "1"
    one, two = _pathway("neuron_mct", 2), _pathway("random", 2)
    assert page.locator("#where canvas").count() == page.locator("#map canvas").count() == 2
    assert _number(page, "#site-kept-b") == int(two.masks["3"][0].sum())
    by_site = page.eval_on_selector_all("#overlap-sites .bar", "bars => bars.map(bar => Number(bar.dataset.value))")
    expected = [float(values[0]) for values in one.jaccard_by_site(two).values()]
    assert by_site == pytest.approx([value for value in expected if value == value])
    restricted = _probabilities(two)[0]
    label = int(restricted.argmax())
    assert _number(page, f'[data-name="b-{label}"]') == pytest.approx(100 * float(restricted[label]), rel=1e-5)
    _after(page, lambda: page.click("#methods label:nth-child(2)"))  # the compared one: both change places
    assert page.input_value("#compare") == "0"
    _after(page, lambda: page.select_option("#compare", ""))
    assert page.locator("#where canvas").count() == 1


def test_the_keyboard_reaches_everything(opened):
    page = opened(part="stop=1&site=0&method=0")
    for key, name, value in (
        ("ArrowRight", "stop", 2),
        ("ArrowLeft", "stop", 1),
        ("n", "input", 1),
        ("p", "input", 0),
        ("m", "method", 1),
        ("c", "other", 0),
        ("c", "other", 2),
        ("u", "unit", 1),
        ("d", "site", 1),
        ("s", "site", 0),
    ):
        _after(page, lambda key=key: page.keyboard.press(key))
        assert f"{name}={value}" in page.url
    page.focus("#methods input:checked")
    _after(page, lambda: page.keyboard.press("ArrowRight"))  # a radio's own arrows, not the slider's
    assert "method=2" in page.url
    assert "stop=1" in page.url


def test_the_address_tells_what_is_shown(opened):
    page = opened(part="input=1&method=2&stop=3&site=2&other=0")
    assert page.is_checked("#inputs label:nth-child(2) input")
    assert page.is_checked("#methods label:nth-child(3) input")
    assert (page.input_value("#sparsity"), page.input_value("#site"), page.input_value("#compare")) == (
        "3",
        "2",
        "0",
    )
    wrong = opened(part="input=7&method=-1&stop=x&site=99&other=1&nothing=1")
    assert wrong.is_checked("#inputs label:nth-child(1) input")
    assert wrong.input_value("#compare") == "1"


def test_a_finger_moves_the_slider_and_picks(opened):
    page = opened(390, "stop=0", has_touch=True)
    area = page.locator("#sparsity").bounding_box()
    _after(page, lambda: page.touchscreen.tap(area["x"] + area["width"] - 4, area["y"] + area["height"] / 2))
    assert page.input_value("#sparsity") == "3"
    _after(page, lambda: page.tap("#methods label:nth-child(2)"))
    assert page.is_checked("#methods label:nth-child(2) input")
    _after(page, lambda: page.tap("#site-after"))
    low = page.eval_on_selector_all(
        "button, select, .pills label, .inputs label",
        "all => all.filter(one => one.offsetHeight && one.offsetHeight < 40).length",
    )
    assert low == 0  # a finger is as wide


_TEXTS = """() => {
  const found = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || one.closest('script, noscript, title, [hidden]') || !one.getClientRects().length) continue;
    const area = one.getBoundingClientRect(), strip = one.closest('#inputs');
    found.push({
      text: one.textContent.trim().slice(0, 40), size: parseFloat(getComputedStyle(one).fontSize),
      out: !strip && (area.right > innerWidth + 0.5 || area.left < -0.5),
      cut: !strip && one.tagName !== 'SELECT' && getComputedStyle(one).overflow !== 'visible'
        && one.scrollWidth > one.clientWidth + 1,
    });
  }
  return found;
}"""


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (768, "light"), (1600, "light")])
def test_nothing_overflows_or_is_too_small(opened, width, scheme):
    page = opened(width, color_scheme=scheme)
    states = (
        "site=1&stop=1&method=0&unit=0",
        "other=1&channel=2&method=0&unit=0&site=0",
        "unit=1&other=2&method=0",
    )
    for part in states:
        values = {name: int(value) for name, _, value in (one.partition("=") for one in part.split("&"))}
        _after(page, lambda values=values: page.evaluate("values => change(values)", values))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        texts = page.evaluate(_TEXTS)
        assert len(texts) > 40
        assert [one["text"] for one in texts if one["size"] < 12] == []
        assert [one["text"] for one in texts if one["out"] or one["cut"]] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"dark": "rgb(16, 19, 23)", "light": "rgb(245, 246, 248)"}[scheme]


def test_nothing_can_be_fetched(opened):
    page = opened()
    policy = page.get_attribute('meta[http-equiv="Content-Security-Policy"]', "content")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert (
        page.evaluate(
            "performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:')).length"
        )
        == 0
    )


@pytest.mark.slow
def test_a_page_of_20_photographs_and_5_methods_is_small_and_opens_at_once(browser, tmp_path):
    model, pixels = cpath.models.efficientnet_lite0(), np.random.default_rng(0).random((20, 28, 28, 3))
    names = ("neuron_mct", "neuron_intgrad", "greedy", "dgr", "random")
    plan = Plan.of(model, torch.zeros(1, 3, 224, 224), names, count=20, sites="relu6")
    rng = np.random.default_rng(0)
    answers = _drawn(plan, rng)
    smooth = np.repeat(np.repeat(pixels, 8, 1), 8, 2) * 0.9 + 0.1 * rng.random((20, 224, 224, 3))
    html = write_page(plan, answers, Shown(smooth, [str(number) for number in range(20)]))
    assert len(html) < 15e6
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    assert _seconds(browser, tmp_path / "page.html") < 1


def _seconds(browser: Any, file: Path) -> float:
    """Processor time of the page's process until everything is drawn: other work on the machine does not count."""
    context = browser.new_context()
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    found = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    context.close()
    return float(found["ProcessTime"])


def _drawn(plan: Plan, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Answers of the size of those of 20 photographs: positions as of random units, which compress least."""
    (unit,), stops, sites = plan.units, len(plan.sparsity), len(plan.units[0].grids)
    share = 1 - np.array(plan.sparsity) / 100
    room = np.concatenate(
        [np.full(grid.cells, grid.per_place * grid.rows // grid.cells[0]).ravel() for grid in unit.grids]
    )
    cells = plan.channels * sum(grid.cells[0] * grid.cells[1] for grid in unit.grids)
    classes = np.tile(np.arange(5, dtype=np.int32), (20, 1))
    answers = {"network/target": classes[:, 0], "network/predicted": classes[:, 0], "network/classes": classes}
    answers["network/probability"] = rng.random((20, 5)).astype(np.float32)
    for method in plan.methods:
        numbers: dict[str, np.ndarray] = {
            "kept": rng.integers(0, 1000, (20, stops, sites)),
            "places": rng.binomial(room[None, None], share[None, :, None], (20, stops, len(room))),
            "sufficiency": rng.random((20, stops)),
            "necessity": rng.random((20, stops)),
            "map": rng.integers(0, 256, (20, stops, 64, 64)) * (rng.random((20, stops, 64, 64)) < 0.4),
            "listed": rng.random((20, stops, 5)),
            "top": rng.integers(0, 1000, (20, stops, 5)),
            "top_restricted": rng.random((20, stops, 5)),
            "top_whole": rng.random((20, stops, 5)),
            "channels": rng.integers(0, 32, (20, sites, plan.channels)),
            "strength": rng.random((20, sites, plan.channels)),
            "channel_kept": rng.integers(0, 100, (20, stops, sites, plan.channels)),
            "channel_places": (1 << rng.geometric(0.5, (20, cells)).clip(1, stops)) - 1,
        }
        answers |= {f"neuron/{method}/{name}": values for name, values in numbers.items()}
    for one, two in itertools.combinations(plan.methods, 2):
        answers[f"neuron/{one}+{two}/shared"] = rng.integers(0, 100, (20, stops, sites))
    return answers
