import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.checks import without_vmap_warnings
from cpath.methods import NeuronIntGrad
from cpath.sites import EVERY_SITE
from tests import zoo
from tests.oracles import contribution as oracle
from tests.oracles.networks import NETWORKS

TIGHT = {"rtol": 1e-9, "atol": 1e-12}
UNRUNNABLE_BY_VMAP = [zoo.Discarding, zoo.InplaceSkip, zoo.Scaled]


@pytest.fixture
def images() -> Tensor:
    return zoo.images(dtype=torch.float64)


@pytest.fixture(params=list(NETWORKS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class Hidden(nn.Module):
    """fc(f(conv(x))) with f given."""

    def __init__(self, f) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, zoo.CLASSES)
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.f(self.conv(x)).mean((2, 3)))


def hidden(f) -> nn.Module:
    return zoo.make(lambda: Hidden(f), torch.float64)


# Records


@pytest.mark.parametrize("share", [None, 0.6])
def test_record_equals_oracle(name, images, share):
    model = zoo.make(name, torch.float64)
    network, weights = NETWORKS[name], dict(model.state_dict())
    source = images.clone().requires_grad_()
    _, seen = oracle.run(network, weights, images)
    generator = torch.Generator().manual_seed(0)
    masks = share and {site: torch.rand(z.shape, generator=generator) < share for site, z in seen.items()}
    logits, seen = oracle.run(network, weights, source, masks=masks)
    gradients = torch.autograd.grad(logits[:, 2].sum(), list(seen.values()))
    record = cpath.Probe(model, images, 2).record(masks)
    torch.testing.assert_close(record.logits, logits.detach(), **TIGHT)
    assert list(record.activations) == list(record.gradients) == list(seen)
    for (site, output), gradient in zip(seen.items(), gradients, strict=True):
        torch.testing.assert_close(record.activations[site], output.detach(), **TIGHT)
        torch.testing.assert_close(record.gradients[site], gradient, **TIGHT)
    bare = cpath.Probe(model, images, 2).record(masks, gradients=False)
    assert bare.gradients == {}
    for site, output in seen.items():
        torch.testing.assert_close(bare.activations[site], output.detach(), **TIGHT)
        assert not bare.activations[site].requires_grad


def test_record_notes_outputs_as_they_were_before_the_model_changed_them(images):
    def f(x: Tensor) -> Tensor:
        x = F.gelu(x)
        x *= 3
        return x

    model = hidden(f)
    output = F.gelu(model.conv(images)).detach()
    for gradients in (True, False):
        record = cpath.Probe(model, images, 1, sites="gelu").record(gradients=gradients)
        torch.testing.assert_close(record.activations[":gelu"], output, **TIGHT)
    expected = (3 * model.fc.weight[1] / 64).detach().view(1, 4, 1, 1).expand(3, 4, 8, 8)
    record = cpath.Probe(model, images, 1, sites="gelu").record()
    torch.testing.assert_close(record.gradients[":gelu"], expected, **TIGHT)
    masked = cpath.Probe(model, images, 1, sites="gelu").record({":gelu": output > 0})
    torch.testing.assert_close(masked.activations[":gelu"], output * (output > 0), **TIGHT)
    torch.testing.assert_close(masked.gradients[":gelu"], expected, **TIGHT)


def test_in_place_chain_of_sites_is_recorded_before_the_next(images):
    def f(x: Tensor) -> Tensor:
        x = F.relu(x, inplace=True)
        x = x.mul_(2).sub_(0.5)
        return F.relu(x, inplace=True)

    model = hidden(f)
    with torch.no_grad():
        first = model.conv(images).clamp(min=0)
        second = (first * 2 - 0.5).clamp(min=0)
        record = cpath.Probe(model, images).record(gradients=False)
    torch.testing.assert_close(record.activations[":relu"], first, **TIGHT)
    torch.testing.assert_close(record.activations[":relu#2"], second, **TIGHT)


def test_gradients_may_be_changed_in_place(images):
    # An addition hands one gradient to both sides, a sum one number to all: see test_scores for their values.
    model = hidden(lambda x: F.relu(x) + F.relu(-x))
    record = cpath.Probe(model, images).record()
    second = record.gradients[":relu#2"].clone()
    record.gradients[":relu"].fill_(7)
    assert torch.equal(record.gradients[":relu#2"], second)


def test_neurons_the_response_does_not_depend_on_have_gradient_zero(images):
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = x.mean((2, 3))
            F.relu(2 * x)
            return self.fc(F.relu(x))

    record = cpath.Probe(zoo.make(Unused, torch.float64), images).record()
    assert record.gradients[":relu"].shape == (3, 3)
    assert record.gradients[":relu"].count_nonzero() == 0
    assert record.gradients[":relu#2"].count_nonzero() > 0


def test_no_gradient_of_a_parameter_is_computed(images):
    model = zoo.make("residual", torch.float64)
    computed = []
    handles = [p.register_hook(lambda g: computed.append(g.shape)) for p in model.parameters()]
    for method in ("neuron_mct", "neuron_intgrad"):
        pathway = cpath.find_pathway(model, images, method)
        cpath.pathway_gradient(model, images, pathway)
    assert computed == []
    model(images).sum().backward()
    assert len(computed) == len(handles)  # the hooks do tell


def test_sites_without_a_gradient_are_refused(images):
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = F.relu(self.conv(x)).mean((2, 3))
            return self.fc(x)

    model = zoo.make(Frozen, torch.float64)
    with pytest.raises(cpath.SiteError, match=r"site ':relu' runs where gradients are switched off.*no_grad"):
        cpath.score(model, images, "neuron_mct")
    assert cpath.score(model, images, "active").flat.sum() > 0


def test_sites_whose_first_dimension_is_not_the_batch_are_refused(images):
    model = hidden(lambda x: F.relu(x.transpose(0, 1)).transpose(0, 1))
    with pytest.raises(
        cpath.SiteError, match=r"site ':relu' gives shape \(4, 1, 8, 8\).*first dimension.*its dimension 1 is"
    ):
        cpath.score(model, images)


# Targets


def test_target_defaults_to_the_predicted_class(images):
    model = zoo.make("residual", torch.float64)
    predicted = model(images).argmax(1)
    assert len(predicted.unique()) > 1
    assert torch.equal(cpath.Probe(model, images).target, predicted)
    whole = cpath.Probe(model, images)
    assert torch.equal(whole.part(slice(1, 3)).target, predicted[1:])
    assert cpath.Probe(model, images, torch.tensor(0)).target.tolist() == [0, 0, 0]
    part = cpath.Probe(model, images, [4, 3, 0]).part(slice(1, 2))
    assert (len(part), part.target.tolist()) == (1, [3])
    assert torch.equal(part.inputs.tensors[0], images[1:2])


# Responses


@pytest.mark.parametrize("in_lanes", [True, False])
def test_responses_equal_oracle(name, images, in_lanes):
    model = zoo.make(name, torch.float64)
    network, weights = NETWORKS[name], dict(model.state_dict())
    probe = cpath.Probe(model, images, [0, 2, 4])
    if not in_lanes:
        probe._lanes.possible = False
    for site, z in probe.record().activations.items():
        values = torch.stack([0 * z, 0.3 * z, z + 0.1]).requires_grad_()
        expected = torch.stack(
            [oracle.run(network, weights, images, {site: v})[0][range(3), [0, 2, 4]] for v in values]
        )
        found = probe.responses(site, values)
        torch.testing.assert_close(found, expected, **TIGHT)
        slopes = [torch.autograd.grad(r.pow(2).sum(), values)[0] for r in (found, expected)]
        torch.testing.assert_close(*slopes, **TIGHT)
    assert probe._lanes.possible is in_lanes


@pytest.mark.parametrize("module", UNRUNNABLE_BY_VMAP)
def test_models_that_vmap_cannot_run_get_full_passes(module, images):
    model = zoo.make(module, torch.float64)
    probe = cpath.Probe(model, images)
    with torch.no_grad():
        z = probe.record().activations[":relu"]
        responses = probe.responses(":relu", torch.stack([z, 0 * z]))
        assert probe._lanes.possible is False
        torch.testing.assert_close(responses[0], model(images).max(1).values, **TIGHT)
    assert not torch.allclose(responses[1], responses[0])


def discarding(w: dict[str, Tensor], x: Tensor, site) -> Tensor:
    x = site(":relu", F.conv2d(x, w["conv.weight"], w["conv.bias"], padding=1)).mean((2, 3))
    x = site(":relu#2", x @ w["hidden.weight"].T + w["hidden.bias"])
    return x @ w["fc.weight"].T + w["fc.bias"]


def inplace_skip(w: dict[str, Tensor], x: Tensor, site) -> Tensor:
    x = F.conv2d(x, w["stem.weight"], w["stem.bias"], padding=1)
    x = x + F.conv2d(site(":relu", x), w["conv.weight"], w["conv.bias"], padding=1)
    return site(":relu#2", x).mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def scaled(w: dict[str, Tensor], x: Tensor, site) -> Tensor:
    x = site(":relu", F.conv2d(x, w["conv.weight"], w["conv.bias"], padding=1))
    x = site(":relu#2", F.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=1))
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize(
    ("module", "network"), list(zip(UNRUNNABLE_BY_VMAP, [discarding, inplace_skip, scaled], strict=True))
)
def test_neuron_intgrad_by_full_passes_equals_oracle(module, network, images):
    model = zoo.make(module, torch.float64)
    weights = dict(model.state_dict())
    scores = cpath.score(model, images, NeuronIntGrad(rule="midpoint", nodes=5), target=2)
    for site, values in scores.values.items():
        for index, image in enumerate(images):
            signed = oracle.intgrad(network, weights, image, 2, site, oracle.MIDPOINT_5)
            torch.testing.assert_close(values[index], signed.abs(), **TIGHT)
            residual = oracle.residual(network, weights, image, 2, site, signed)
            assert float(scores.residual[site][index]) == pytest.approx(residual, rel=1e-6, abs=1e-9)


def test_lanes_and_full_passes_agree(name, images, monkeypatch):
    model = zoo.make(name, torch.float64)
    in_lanes = cpath.score(model, images, "neuron_intgrad")

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no batching rule")

    monkeypatch.setattr(torch, "vmap", refuse)
    by_passes = cpath.score(model, images, "neuron_intgrad")
    torch.testing.assert_close(by_passes.flat, in_lanes.flat, **TIGHT)
    for site, values in by_passes.residual.items():
        torch.testing.assert_close(values, in_lanes.residual[site], rtol=1e-6, atol=1e-9, equal_nan=True)


def test_lack_of_memory_is_not_mistaken_for_a_model_that_vmap_cannot_run(images, monkeypatch):
    def exhausted(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "vmap", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        cpath.score(zoo.make("vgg", torch.float64), images, "neuron_intgrad")


def test_ignored_return_value_is_noticed_even_where_relu_changes_nothing(images):
    model = zoo.make(zoo.Discarding, torch.float64)
    with torch.no_grad():
        model.conv.bias += 100
        model.hidden.bias += 1000
    assert (cpath.Probe(model, images).record().activations[":relu"] > 0).all()
    scores = cpath.score(model, images, NeuronIntGrad(rule="midpoint", nodes=5))
    weights = dict(model.state_dict())
    expected = oracle.intgrad(
        discarding, weights, images[0], int(scores.target[0]), ":relu", oracle.MIDPOINT_5
    ).abs()
    torch.testing.assert_close(scores.values[":relu"][0], expected, **TIGHT)


@pytest.mark.parametrize("max_batch", [1, 2, 3, 5, 7, 64])
def test_passes_are_never_larger_than_max_batch(name, images, max_batch):
    model = zoo.make(name, torch.float64)
    rows = []
    original = cpath.Probe.responses

    def spy(probe: cpath.Probe, site: str, values: Tensor) -> Tensor:
        rows.append(values.shape[0] * values.shape[1])
        return original(probe, site, values)

    whole = cpath.score(model, images, "neuron_intgrad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpath.Probe, "responses", spy)
        part = cpath.score(model, images, "neuron_intgrad", max_batch=max_batch)
    assert 1 <= max(rows) <= max_batch
    torch.testing.assert_close(part.flat, whole.flat, **TIGHT)


def test_every_site_contains_any_name():
    assert "layer1.0.relu#2" in EVERY_SITE
    assert "" in EVERY_SITE


class Slow(nn.Module):
    """Calls what `torch.vmap` runs lane by lane, and warns of something itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        warnings.warn("of the model", UserWarning, stacklevel=1)
        return self.fc(F.interpolate(F.relu(self.conv(x)), scale_factor=2, mode="nearest-exact").mean((2, 3)))


def test_remarks_of_torch_on_the_speed_of_lanes_do_not_reach_users(images):
    model = zoo.make(Slow, torch.float64)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.vmap(lambda z: F.interpolate(z, scale_factor=2, mode="nearest-exact"))(torch.ones(2, 1, 1, 2, 2))
        assert "performance drop" in str(told.pop().message)  # which a user of vmap is told
        before = list(warnings.filters)
        cpath.score(model, images, "neuron_intgrad")
        assert warnings.filters == before
    assert {str(warning.message) for warning in told} == {"of the model"}


def test_warnings_of_the_model_are_shown_as_often_as_python_shows_them(images):
    model = zoo.make(Slow, torch.float64)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")  # the first one of each line
        model(images)
        cpath.score(model, images, "neuron_intgrad")
    assert [str(warning.message) for warning in told] == ["of the model"]


def test_filters_that_somebody_resets_meanwhile_are_no_error():
    with warnings.catch_warnings():
        with without_vmap_warnings():
            warnings.resetwarnings()
        assert warnings.filters == []
