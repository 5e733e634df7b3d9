import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.baselines import blended
from tests import zoo
from tests.oracles import contribution as oracle
from tests.oracles.networks import NETWORKS

TIGHT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture
def model() -> nn.Module:
    return zoo.make("residual", torch.float64)


@pytest.fixture
def double() -> Tensor:
    return zoo.images(dtype=torch.float64)


def observed(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    with cpath.observe(model) as seen, torch.no_grad():
        model(images)
    return seen.activations


def test_a_baseline_of_zeros_is_the_default(model, double):
    zeros = {name: torch.zeros_like(z[:1]) for name, z in observed(model, double).items()}
    for method in ("neuron_mct", "neuron_intgrad", "greedy", "dgr"):
        method = zoo.quick(method)
        plain, told = (cpath.score(model, double, method, baseline=b) for b in (None, zeros))
        torch.testing.assert_close(told.flat, plain.flat, **TIGHT)
        assert plain.baseline is None
        assert plain.pathway(50).baseline is None


def test_shapes_of_a_baseline_mean_the_same(model, double):
    shared = {name: z[0] for name, z in observed(model, double + 0.5).items()}
    given = (
        shared,
        {name: z[None] for name, z in shared.items()},
        {name: z.expand(3, *z.shape) for name, z in shared.items()},
    )
    flats = [cpath.score(model, double, "neuron_intgrad", baseline=b, max_batch=2).flat for b in given]
    torch.testing.assert_close(flats[0], flats[1], **TIGHT)
    torch.testing.assert_close(flats[0], flats[2], **TIGHT)


def test_an_input_as_its_own_baseline_contributes_nothing(model, double):
    itself = observed(model, double)
    scores = cpath.score(model, double, "neuron_intgrad", baseline=itself)
    assert scores.flat.abs().max() < 1e-12
    pathway = cpath.Pathway.from_masks({n: torch.zeros_like(z).bool() for n, z in itself.items()}, baseline=itself)
    with pathway.restrict(model), torch.no_grad():
        restricted = model(double)
    torch.testing.assert_close(restricted, model(double).detach(), **TIGHT)


def test_an_empty_pathway_answers_as_the_counterfactual(model, double):
    other = double.flip(0)
    there = observed(model, other)
    pathway = cpath.Pathway.from_masks({n: torch.zeros_like(z).bool() for n, z in there.items()}, baseline=there)
    for images, of in ((double, pathway), (double[1:2], pathway[1]), (double, pathway[:1])):
        with of.restrict(model), torch.no_grad():
            found = model(images)
        expected = model(other)[1:2] if len(images) == 1 else model(other if len(of) == 3 else other[:1])
        torch.testing.assert_close(found, expected.detach().expand_as(found), **TIGHT)


def test_blending_is_exact_at_both_ends():
    generator = torch.Generator().manual_seed(0)
    z, b = (torch.randn(2, 3, 4, generator=generator) * 1e3 for _ in range(2))
    kept = torch.rand(2, 3, 1, generator=generator) < 0.5
    expected = torch.where(kept, z, b[:1])
    assert torch.equal(blended(z, kept, b[:1]), expected)
    assert torch.equal(blended(z, kept.float(), b[:1]), expected)
    torch.testing.assert_close(blended(z, torch.full((2, 3, 1), 2.0), b), 2 * z - b)


# What is refused


def test_wrong_baselines_are_refused_before_any_backward_pass(model, double):
    fine = {name: z[:1] for name, z in observed(model, double).items()}
    first = next(iter(fine))
    wrong = {
        r"not a Tensor|not .*tensor": torch.zeros(3),
        r"holds no site: .*cpath\.observe\(model, sites=": {},
        "tensors of floats by name of site": {**fine, first: fine[first].long()},
        "NaN or infinite": {**fine, first: fine[first] / 0},
        "is on meta, the images on cpu": {**fine, first: fine[first].to("meta")},
        r"'relu' has the shape \(2, 4, 8, 8\): it must be": {**fine, "relu": torch.zeros(2, 4, 8, 8).double()},
        r"'relu' has the shape \(8, 8\): it must be": {**fine, "relu": torch.zeros(8, 8).double()},
        r"\(4, 6, 6\) for each input, but the model gives \(4, 8, 8\)": {
            **fine,
            "relu": torch.zeros(4, 6, 6).double(),
        },
        "has no values for site 'layer1.0.relu#2'": {n: v for n, v in fine.items() if n != "layer1.0.relu#2"},
    }
    for message, baseline in wrong.items():
        with pytest.raises(cpath.InputError, match=message):
            cpath.score(model, double, "neuron_intgrad", baseline=baseline)


def test_further_sites_in_a_baseline_do_no_harm(model, double):
    fine = observed(model, double.flip(0))
    more = {"elsewhere": torch.zeros(1, 2).double(), **fine}
    one, other = (cpath.score(model, double, baseline=b) for b in (fine, more))
    assert torch.equal(one.flat, other.flat)
    assert list(other.baseline) == list(other.layout.shapes)


def test_a_pathway_with_a_baseline_fits_only_its_own_images(model, double):
    pathway = cpath.find_pathway(
        model, double, unit="channel", sparsity=50, baseline=observed(model, double.flip(0))
    )
    with pytest.raises(cpath.MaskError, match="3 images, the batch has 2"), pathway.restrict(model):
        model(double[:2])
    with pytest.raises(cpath.MaskError, match=r"baseline has .* another input size"), pathway.restrict(model):
        model(torch.rand(3, 3, 12, 12, dtype=torch.float64))


def test_a_baseline_made_under_inference_mode_and_in_another_type_is_taken(model, double):
    with torch.inference_mode():
        mean = {name: z.mean(0).float() for name, z in observed(model, double).items()}
    scores = cpath.score(model, double, zoo.quick("dgr"), baseline=mean)
    exact = {name: z.mean(0) for name, z in observed(model, double).items()}
    expected = cpath.score(model, double, zoo.quick("dgr"), baseline=exact)
    torch.testing.assert_close(scores.flat, expected.flat, rtol=1e-3, atol=1e-5)


# Means


@pytest.mark.parametrize("name", list(NETWORKS))
def test_mean_activations_equal_the_mean_of_all_images(name, double):
    model = zoo.make(name, torch.float64)
    _, seen = oracle.run(NETWORKS[name], dict(model.state_dict()), double)
    for loader in (
        [double[:1], double[1:]],
        [(double, torch.zeros(3))],
        double,
        ([image[None], 0] for image in double),
    ):
        with zoo.untouched(model):
            mean = cpath.mean_activations(model, loader)
        assert list(mean) == list(seen)
        for site, output in seen.items():
            torch.testing.assert_close(mean[site], output.mean(0, keepdim=True), **TIGHT)


def test_mean_activations_add_up_in_float64():
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x)

    value = torch.tensor([[0.1, 16777216.0]])
    mean = cpath.mean_activations(Same(), [value] * 3 + [torch.tensor([[0.1, 16777217.0 + 1]])], sites=":relu")
    assert mean[":relu"].dtype == torch.float32
    assert mean[":relu"].tolist() == [[pytest.approx(0.1, rel=1e-7), 16777216.0]]
    halves = cpath.mean_activations(Same(), [torch.full((1, 2), 60000.0).half()] * 4, sites=":relu")
    assert halves[":relu"].dtype == torch.float16
    assert halves[":relu"].tolist() == [[60000.0, 60000.0]]  # the sum is beyond the type


def test_mean_activations_say_what_is_wrong(model, double):
    with pytest.raises(cpath.InputError, match="no batch"):
        cpath.mean_activations(model, [])
    with pytest.raises(cpath.InputError, match=r"site 'relu' gives \(4, 12, 12\) for some inputs and \(4, 8, 8\)"):
        cpath.mean_activations(model, [double, torch.rand(1, 3, 12, 12, dtype=torch.float64)])
    with pytest.raises(cpath.SiteError, match="no site"):
        cpath.mean_activations(model, [double], sites="gelu")


# What holds a baseline


def test_indexing_moving_and_files_keep_the_baseline(model, double, tmp_path):
    cf = observed(model, double.flip(0))
    shared = {name: z[:1] for name, z in cf.items()}
    for given, rows in ((cf, 3), (shared, 1)):
        scores = cpath.score(model, double, "neuron_intgrad", unit="channel", baseline=given)
        pathway = scores.pathway(50)
        scores.save(tmp_path / "s")
        pathway.save(tmp_path / "p")
        for made in (scores, pathway, cpath.Scores.load(tmp_path / "s"), cpath.Pathway.load(tmp_path / "p")):
            assert made.layout == scores.layout
            assert made.layout.unit == "channel"
            for name, value in given.items():
                assert torch.equal(made.baseline[name], value)
                assert torch.equal(made[1].baseline[name], value[1:2] if rows == 3 else value)
                assert len(made[torch.tensor([2, 0])].baseline[name]) == (2 if rows == 3 else 1)
            assert {value.device.type for value in made.to("meta").baseline.values()} == {"meta"}
        with cpath.Pathway.load(tmp_path / "p")[2].restrict(model), torch.no_grad():
            found = model(double[2:])
        with pathway.restrict(model), torch.no_grad():
            torch.testing.assert_close(found, model(double)[2:], **TIGHT)


def test_a_baseline_of_other_neurons_than_the_masks_is_refused():
    masks = {"a": torch.ones(2, 4, 1, 1, dtype=torch.bool)}
    with pytest.raises(cpath.MaskError, match=r"\(5, 2, 2\) for each input, which does not fit its channels"):
        cpath.Pathway.from_masks(masks, unit="channel", baseline={"a": torch.zeros(5, 2, 2)})
    pathway = cpath.Pathway.from_masks(masks, unit="channel", baseline={"a": torch.zeros(4, 2, 2)})
    assert pathway.baseline["a"].shape == (1, 4, 2, 2)
