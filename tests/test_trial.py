"""What cannot be told from one pass: sites without the input, batches in another place, chance, threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn

import cpath
from tests import zoo

TIGHT = {"rtol": 1e-9, "atol": 1e-12}


class Net(nn.Module):
    """fc(f(conv(x))), with f a function of the model and the hidden values."""

    def __init__(self, f: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, zoo.CLASSES)
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.f(self, self.conv(x)).mean((2, 3)))


def net(f: Callable[[nn.Module, Tensor], Tensor], dtype: torch.dtype = torch.float64) -> nn.Module:
    return zoo.make(lambda: Net(f), dtype)


@pytest.fixture
def images() -> Tensor:
    return zoo.images(dtype=torch.float64)


# Sites that do not depend on the input


def with_table(rows: int) -> nn.Module:
    """Its first site is a table with as many rows as told, which its second one is multiplied by."""

    def f(model: nn.Module, x: Tensor) -> Tensor:
        table = F.relu(torch.arange(-1.0, rows - 1.0, dtype=x.dtype).view(rows, 1, 1, 1).expand(rows, 4, 8, 8))
        return model.relu(x) * (1 + table.mean(0))

    return net(f)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_table_is_no_site_whatever_its_size(rows, batch, images, method):
    model = with_table(rows)
    images = images[:batch]
    scores = cpath.score(model, images, method, 1)
    assert list(scores.values) == ["relu"]
    assert scores.left_out == (":relu",)
    pathway = scores.pathway(50)
    assert pathway.left_out == (":relu",)
    table = sum(max(row, 0) for row in range(-1, rows - 1)) / rows
    hidden = model.conv(images).clamp(min=0) * pathway.masks["relu"] * (1 + table)
    with pathway.restrict(model), torch.no_grad():
        torch.testing.assert_close(model(images), model.fc(hidden.mean((2, 3))), **TIGHT)


def test_scores_beside_a_table_equal_the_formula(images):
    model = with_table(3)
    hidden = model.conv(images).clamp(min=0).detach()
    expected = (hidden * model.fc.weight[1].view(1, 4, 1, 1) * (1 + 1 / 3) / 64).abs().detach()
    for name in ("neuron_mct", "neuron_intgrad"):  # f is linear in the site
        torch.testing.assert_close(cpath.score(model, images, name, 1).values["relu"], expected, **TIGHT)
    maps = cpath.attribute(model, images, "gbp", 1)
    source = images.clone().requires_grad_()
    slope = (model.fc.weight[1] * (1 + 1 / 3) / 64).clamp(min=0).view(1, 4, 1, 1)
    pre = model.conv(source)
    (guided,) = torch.autograd.grad(pre, source, slope * (pre > 0))
    torch.testing.assert_close(maps, guided, **TIGHT)


def test_a_pathway_from_a_file_fits_a_model_that_was_never_looked_at(images, tmp_path):
    scores = cpath.score(with_table(3), images)
    scores.save(tmp_path / "scores")
    scores.pathway(50).save(tmp_path / "pathway")
    assert cpath.Scores.load(tmp_path / "scores").left_out == (":relu",)
    pathway = cpath.Pathway.load(tmp_path / "pathway")
    fresh = with_table(3)
    with pathway.restrict(fresh) as reached:
        fresh(images)
    assert reached == {"relu"}
    decoded = cpath.decode(fresh, pathway, shape=(3, 8, 8), steps=2)
    assert decoded.images.shape == (3, 3, 8, 8)


def test_masks_of_ones_own_fit_a_model_that_was_looked_at(images):
    model = with_table(3)
    cpath.score(model, images)
    masks = {"relu": torch.ones(3, 4, 8, 8, dtype=torch.bool)}
    with cpath.Pathway.from_masks(masks).restrict(model):
        restricted = model(images)
    assert torch.equal(restricted, model(images))


def test_swin_v2_has_the_sites_that_see_the_image():
    torch.manual_seed(0)
    model = tv.swin_v2_t(num_classes=5).eval()
    images = torch.randn(2, 3, 32, 32)
    both = cpath.score(model, images, sites=("gelu", "relu"))
    assert torch.equal(both.flat, cpath.score(model, images, sites="gelu").flat)
    assert len(both.left_out) == 12
    assert all(name.endswith("cpb_mlp.1") for name in both.left_out)
    alone = cpath.score(model, images[:1], sites=("gelu", "relu"))
    torch.testing.assert_close(alone.flat[0], both.flat[0], rtol=1e-3, atol=1e-6)
    with pytest.raises(cpath.SiteError, match=r"no site found.*cpb_mlp\.1 and 11 others"):
        cpath.score(model, images)


# Batches that are not the first dimension


class Sequence(nn.Module):
    """A transformer over the rows of the image."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, dropout=0.0)
        self.fc = nn.Linear(8, zoo.CLASSES)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        rows = x.mean(1)
        return self.fc(self.layer(rows).mean(1) if self.batch_first else self.layer(rows.transpose(0, 1)).mean(0))


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_sequence_first_transformers_are_refused_also_when_sizes_agree(batch, method):
    images = zoo.images(batch, dtype=torch.float64)
    with pytest.raises(cpath.SiteError, match=r"'layer:relu' gives shape \(8, 1, 16\).*batch_first=True"):
        cpath.score(zoo.make(lambda: Sequence(False), torch.float64), images, method)
    assert len(cpath.score(zoo.make(lambda: Sequence(True), torch.float64), images, method)) == batch


def test_batches_folded_into_another_dimension_are_refused(images):
    model = net(lambda model, x: F.relu(x.flatten(0, 1)).view(x.shape))
    with pytest.raises(cpath.SiteError, match=r"shape \(4, 8, 8\) for one input and \(8, 8, 8\) for two"):
        cpath.score(model, images)
    model = net(lambda model, x: model.relu(x) + F.relu(x.mean(0, keepdim=True)))
    with pytest.raises(cpath.SiteError, match=r"':relu' gives shape \(1, 4, 8, 8\) for one input and \(1, 4"):
        cpath.score(model, images)


# Chance, and batches that are mixed


def drawing(model: nn.Module, x: Tensor) -> Tensor:
    return F.dropout(F.relu(x), 0.5)  # in eval mode too: the default of the function


def mixing(model: nn.Module, x: Tensor) -> Tensor:
    return F.relu(F.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("f", "word"), [(drawing, "draws random numbers"), (mixing, "mixes the batch")])
@pytest.mark.parametrize("call", [cpath.score, cpath.attribute, lambda m, x: cpath.attribute(m, x, "gradients")])
def test_models_that_draw_or_mix_are_warned_of_once(f, word, call, batch, images):
    model = net(f)
    with pytest.warns(UserWarning, match=f"the model gives .*{word}") as told:
        call(model, images[:batch])
    assert [warning.filename for warning in told if word in str(warning.message)] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(model, images[:batch])


def test_the_look_at_a_model_leaves_the_random_state(images):
    model = net(lambda model, x: F.relu(x + 0 * torch.rand_like(x)))
    before = torch.get_rng_state()
    cpath.score(model, images)
    after_first = torch.get_rng_state()
    torch.set_rng_state(before)
    cpath.score(model, images)
    assert torch.equal(after_first, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(zoo.MODELS))
def test_models_that_neither_draw_nor_mix_are_not_warned_of(name, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in (1, 3):
            cpath.score(zoo.make(name, dtype), zoo.images(batch, dtype=dtype))


def test_a_model_of_one_batch_size_is_not_looked_at_but_scored(images):
    def f(model: nn.Module, x: Tensor) -> Tensor:
        return F.relu(x.view(3, 4, 8, 8))

    for name in ("neuron_mct", "active"):
        assert len(cpath.score(net(f), images, name)) == 3


# Threads


def test_branches_in_threads_are_refused(images):
    def f(model: nn.Module, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return F.relu(x) + pool.submit(model.relu, x).result()

    for call in (cpath.score, cpath.attribute, lambda m, x: cpath.attribute(m, x, "gradcam")):
        with pytest.raises(cpath.SiteError, match=r"runs its part 'relu' in another thread.*one after another"):
            call(net(f), images)


def test_a_pass_of_the_users_in_another_thread_is_no_branch(images):
    def f(model: nn.Module, x: Tensor) -> Tensor:
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=model, args=(images[:1],))
            thread.start()
            thread.join()
        return model.relu(x)

    assert list(cpath.score(net(f), images).values) == ["relu"]


# Quantised parts


def test_quantised_parts_are_refused():
    model = zoo.make("sequential")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.ao is deprecated is no concern of this test
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    message = r"the part '7' of the model is quantised \(Linear\).*floating point"
    for method in ("neuron_mct", "random"):
        with pytest.raises(cpath.SiteError, match=message):
            cpath.score(quantised, zoo.images(), method)
    with pytest.raises(cpath.SiteError, match=message), cpath.observe(quantised):
        pass


class _TableAlone(nn.Module):
    """Calls ReLU on a parameter alone, and tanh on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(images) * torch.relu(self.table))


def test_a_model_whose_only_sites_do_not_depend_on_the_input_is_told_what_else_it_calls():
    with pytest.raises(
        cpath.SiteError, match=r"no site found.*\(relu\) but at :relu, where .* It calls tanh \(1×\): pass"
    ):
        cpath.score(_TableAlone().eval(), torch.randn(2, 4))
