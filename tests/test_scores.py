import math
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from tests import zoo
from tests.oracles import contribution as oracle
from tests.oracles import threshold as sorting
from tests.oracles.networks import NETWORKS, Network, Weights

TIGHT = {"rtol": 1e-9, "atol": 1e-12}
RULES = {
    ("midpoint", 5): oracle.MIDPOINT_5,
    ("endpoint", 5): oracle.ENDPOINT_5,
    ("trapezoid", 3): oracle.TRAPEZOID_3,
    ("legendre", 2): oracle.LEGENDRE_2,
}


@pytest.fixture(params=list(NETWORKS))
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Network, Weights]:
    """A float64 model and the same network written out, with its weights."""
    model = zoo.make(request.param, torch.float64)
    return model, NETWORKS[request.param], dict(model.state_dict())


@pytest.fixture
def images() -> Tensor:
    return zoo.images(dtype=torch.float64)


def assert_same_masks(pathway: cpath.Pathway, scores: list[dict[str, Tensor]], sparsity: float) -> None:
    for masks, image_scores in zip(pathway.flat, scores, strict=True):
        flat = torch.cat([image_scores[name].abs().flatten() for name in pathway.layout.shapes])
        assert sorting.trues(masks.tolist()) == sorting.kept(flat.tolist(), sparsity)


def test_written_out_networks_compute_what_the_models_compute(pair, images):
    model, network, weights = pair
    logits, seen = oracle.run(network, weights, images)
    with cpath.observe(model) as observed, torch.no_grad():
        torch.testing.assert_close(model(images), logits, **TIGHT)
    assert list(observed.activations) == list(seen)
    for name, output in seen.items():
        torch.testing.assert_close(observed.activations[name], output, **TIGHT)


def test_neuron_mct_equals_oracle(pair, images):
    model, network, weights = pair
    labels = model(images).argmax(1)
    scores = cpath.score(model, images, "neuron_mct")
    assert torch.equal(scores.target, labels)
    expected = [oracle.mct(network, weights, image, int(c)) for image, c in zip(images, labels, strict=True)]
    for index, values in enumerate(expected):
        assert list(values) == list(scores.values)
        for name, value in values.items():
            torch.testing.assert_close(scores.values[name][index], value.abs(), **TIGHT)
    for sparsity in (0, 50, 90, 97.3):
        assert_same_masks(scores.pathway(sparsity), expected, sparsity)


def test_neuron_mct_of_a_chosen_class_equals_oracle(pair, images):
    model, network, weights = pair
    scores = cpath.score(model, images, "neuron_mct", target=torch.tensor([4, 0, 2]))
    for index, target in enumerate([4, 0, 2]):
        for name, value in oracle.mct(network, weights, images[index], target).items():
            torch.testing.assert_close(scores.values[name][index], value.abs(), **TIGHT)


def test_neuron_mct_is_the_slope_of_the_response_in_each_neuron(images):
    model = zoo.make("sequential", torch.float64)
    weights, network, image = dict(model.state_dict()), NETWORKS["sequential"], images[:1]
    scores = cpath.score(model, image, "neuron_mct", target=2)
    _, seen = oracle.run(network, weights, image)
    step = 1e-6
    for name, size in (("1", 256), ("8", 10)):
        for neuron in range(0, size, 7):
            nudge = torch.zeros(size, dtype=torch.float64)
            nudge[neuron] = step
            nudge = nudge.view_as(seen[name])
            up, _ = oracle.run(network, weights, image, {name: seen[name] + nudge})
            down, _ = oracle.run(network, weights, image, {name: seen[name] - nudge})
            slope = float(up[0, 2] - down[0, 2]) / (2 * step)
            z = float(seen[name].flatten()[neuron])
            assert float(scores.values[name].flatten()[neuron]) == pytest.approx(abs(z * slope), abs=1e-7)


@pytest.mark.parametrize(("rule", "nodes"), list(RULES))
def test_neuron_intgrad_equals_oracle(pair, images, rule, nodes):
    model, network, weights = pair
    labels = model(images).argmax(1)
    scores = cpath.score(model, images, cpath.methods.NeuronIntGrad(rule=rule, nodes=nodes))
    expected = []
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        expected.append({})
        for name in scores.values:
            signed = oracle.intgrad(network, weights, image, label, name, RULES[rule, nodes])
            torch.testing.assert_close(scores.values[name][index], signed.abs(), **TIGHT)
            found = float(scores.residual[name][index])
            assert found == pytest.approx(
                oracle.residual(network, weights, image, label, name, signed), rel=1e-6, abs=1e-9, nan_ok=True
            )
            expected[-1][name] = signed
    for sparsity in (0, 80, 95.5):
        assert_same_masks(scores.pathway(sparsity), expected, sparsity)


def test_neuron_intgrad_by_name_is_nine_nodes_with_the_right_end(pair, images):
    model, network, weights = pair
    scores = cpath.score(model, images[:1], "neuron_intgrad", target=3)
    for name, values in scores.values.items():
        expected = oracle.intgrad(network, weights, images[0], 3, name, oracle.ENDPOINT_9)
        torch.testing.assert_close(values[0], expected.abs(), **TIGHT)


def test_contributions_are_complete_with_many_nodes(pair, images):
    model, network, weights = pair
    coarse = cpath.score(model, images, cpath.methods.NeuronIntGrad(rule="midpoint", nodes=2), target=1)
    probe = cpath.Probe(model, images, 1)
    fine = cpath.methods.NeuronIntGrad(rule="midpoint", nodes=1000).contributions(probe)
    logits, seen = oracle.run(network, weights, images)
    worst = {"coarse": 0.0, "fine": 0.0}
    for name, signed in fine.values.items():
        without, _ = oracle.run(network, weights, images, {name: torch.zeros_like(seen[name])})
        drop = (logits - without)[:, 1]
        total = signed.flatten(1).sum(1)
        # The integrand is piecewise constant: the midpoint rule errs by at most one cell at each kink.
        torch.testing.assert_close(total, drop, rtol=0.01, atol=2e-3)
        relative = (total - drop).abs() / drop.abs()
        torch.testing.assert_close(fine.residual[name], relative, rtol=1e-4, atol=1e-9, equal_nan=True)
        large = drop.abs() > 0.1  # a relative error says little where there is nothing to explain
        for label, found in (("coarse", coarse.residual[name]), ("fine", fine.residual[name])):
            worst[label] = max([worst[label], *found[large].tolist()])
    assert worst["fine"] < 0.01
    assert worst["coarse"] > 5 * worst["fine"]


def test_last_site_is_complete_with_one_node(images):
    model = zoo.make("sequential", torch.float64)  # what follows the last site is linear
    scores = cpath.score(model, images, cpath.methods.NeuronIntGrad(rule="midpoint", nodes=1))
    assert scores.residual["8"].max() < 1e-12
    assert scores.residual["1"].min() > 1e-4


def test_residual_is_nan_where_the_site_changes_nothing(images):
    class Ignored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = x.abs().mean((2, 3))
            return self.fc(F.relu(x)) + 0 * F.relu(-x - 100).sum(1, keepdim=True)

    scores = cpath.score(zoo.make(Ignored, torch.float64), images, "neuron_intgrad", sites=":relu")
    assert scores.residual[":relu#2"].isnan().all()
    assert scores.residual[":relu"].isfinite().all()


def test_only_neuron_intgrad_reports_a_residual(images):
    model = zoo.make("vgg", torch.float64)
    assert cpath.score(model, images, "neuron_mct").residual is None
    residual = cpath.score(model, images, "neuron_intgrad").residual
    assert list(residual) == ["1", "4", "9"]
    assert all(values.shape == (3,) for values in residual.values())


# Gradients that autograd hands to several sites in one piece of memory


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)
        self.b = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((F.relu(self.a(x)) + F.relu(self.b(x))).mean((2, 3)))


class Summed(Added):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.a(x)).sum((2, 3)))


class ConcatenatedAndAdded(Added):
    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        x = torch.cat([F.relu(a), F.relu(b)], 1) + F.relu(torch.cat([b, a], 1))
        return self.fc(x[:, 2:6].mean((2, 3)))


def _added(w: Weights, x: Tensor, site) -> Tensor:
    a, b = (F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"]) for name in "ab")
    return (site(":relu", a) + site(":relu#2", b)).mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def _summed(w: Weights, x: Tensor, site) -> Tensor:
    a = F.conv2d(x, w["a.weight"], w["a.bias"])
    return site(":relu", a).sum((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def _concatenated_and_added(w: Weights, x: Tensor, site) -> Tensor:
    a, b = (F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"]) for name in "ab")
    x = torch.cat([site(":relu", a), site(":relu#2", b)], 1) + site(":relu#3", torch.cat([b, a], 1))
    return x[:, 2:6].mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize(
    ("module", "network"),
    [(Added, _added), (Summed, _summed), (ConcatenatedAndAdded, _concatenated_and_added)],
)
def test_sites_whose_gradients_share_memory_equal_oracle(module, network, images):
    model = zoo.make(module, torch.float64)
    weights = dict(model.state_dict())
    by_method = {
        "neuron_mct": lambda image, name: oracle.mct(network, weights, image, 3)[name],
        "neuron_intgrad": lambda image, name: oracle.intgrad(
            network, weights, image, 3, name, RULES["endpoint", 5]
        ),
    }
    for method, expected in by_method.items():
        settings = {"rule": "endpoint", "nodes": 5} if method == "neuron_intgrad" else {}
        scores = cpath.score(model, images, cpath.methods.get(method, **settings), target=3)
        for name, values in scores.values.items():
            for index, image in enumerate(images):
                torch.testing.assert_close(values[index], expected(image, name).abs(), **TIGHT)


# Baselines


def test_active_scores_one_where_the_neuron_is_active(pair, images):
    model, network, weights = pair
    _, seen = oracle.run(network, weights, images)
    scores = cpath.score(model, images, "active")
    for name, output in seen.items():
        assert torch.equal(scores.values[name], (output > 0).double())
    for sparsity in (0, 10):  # less than the base sparsity: the active subnetwork
        pathway = scores.pathway(sparsity)
        assert all(torch.equal(pathway.masks[name], output > 0) for name, output in seen.items())


def test_random_scores_are_uniform_and_global(images):
    model = zoo.make("residual", torch.float64)
    scores = cpath.score(model, images, "random")
    values = scores.flat.flatten()
    assert float(values.min()) >= 0
    assert float(values.max()) < 1
    assert float(values.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * len(values)))
    kept = scores.pathway(90).sparsity
    torch.testing.assert_close(kept, torch.full((3,), 90.0, dtype=torch.float64), rtol=0, atol=0.1)
    assert len({tuple(row.tolist()) for row in scores.flat}) == 3  # no two images draw the same


def test_random_follows_its_seed(images):
    model = zoo.make("vgg", torch.float64)
    first, again, other = (cpath.score(model, images, cpath.methods.get("random", seed=s)).flat for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any(1).all()
    with pytest.raises(cpath.InputError, match="seed"):
        cpath.methods.get("random", seed=-1)


# Values of Scores


def test_values_are_views_of_flat_in_forward_order(pair, images):
    model, network, weights = pair
    _, seen = oracle.run(network, weights, images)
    scores = cpath.score(model, images)
    assert len(scores) == 3
    assert {name: value.shape for name, value in scores.values.items()} == {
        name: output.shape for name, output in seen.items()
    }
    assert torch.equal(torch.cat([value.flatten(1) for value in scores.values.values()], 1), scores.flat)
    first = next(iter(scores.values.values()))
    assert first.data_ptr() == scores.flat.data_ptr()


def test_scores_move_to_a_device_with_all_they_hold(images):
    scores = cpath.score(zoo.make("vgg", torch.float64), images, "neuron_intgrad", target=[0, 1, 2])
    moved = scores.to("meta")
    assert moved.flat.device.type == moved.target.device.type == "meta"
    assert {value.device.type for value in (*moved.values.values(), *moved.residual.values())} == {"meta"}
    assert moved.layout == scores.layout
    back = scores.to("cpu")
    assert torch.equal(back.flat, scores.flat)
    assert torch.equal(back.target, scores.target)


def test_find_pathway_is_score_and_pathway_in_one(pair, images):
    model, _, _ = pair
    in_one = cpath.find_pathway(model, images, "neuron_mct", 75, target=[1, 0, 3])
    in_two = cpath.score(model, images, "neuron_mct", target=[1, 0, 3]).pathway(75)
    assert torch.equal(in_one.flat, in_two.flat)
    assert in_one.target.tolist() == [1, 0, 3]
    assert in_one.method == "neuron_mct"
    assert in_one.requested_sparsity == 75


def test_pathway_realises_at_least_the_requested_sparsity(pair, images):
    model, _, _ = pair
    scores = cpath.score(model, images)
    for sparsity in (0, 10, 50, 90, 99):
        pathway = scores.pathway(sparsity)
        assert (pathway.sparsity >= sparsity - 1e-9).all()
        assert not (pathway.flat & (scores.flat == 0)).any()


def test_other_activations_are_scored_when_named(images):
    class Gelu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 6)
            self.act = nn.GELU()
            self.fc = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.act(self.a(x.mean((2, 3)))))

    model = zoo.make(Gelu, torch.float64)
    with pytest.raises(cpath.SiteError, match=r"no site found.*gelu"):
        cpath.score(model, images)
    scores = cpath.score(model, images, sites="gelu", target=0)
    hidden = F.gelu(model.a(images.mean((2, 3))))
    torch.testing.assert_close(scores.values["act"], (hidden * model.fc.weight[0]).abs().detach(), **TIGHT)
    pathway = scores.pathway(50)
    assert pathway.sites == ("gelu",)
    with pathway.restrict(model), torch.no_grad():
        torch.testing.assert_close(model(images), model.fc(hidden * pathway.masks["act"]), **TIGHT)


def test_methods_that_draw_with_the_same_seed_draw_different_numbers():
    images = zoo.images()
    one, same, other = (
        torch.rand(1000, generator=cpath.methods.image_generators(images, 0, stream)[0])
        for stream in ("random", "random", "dgr_random_init")
    )
    assert torch.equal(one, same)
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.15


@pytest.mark.parametrize("rule", ["endpoint", "midpoint", "trapezoid"])
@pytest.mark.parametrize("nodes", [2, 3])
def test_neuron_intgrad_without_the_residual_gives_the_same_scores(images, rule, nodes):
    model = zoo.make("residual", torch.float64)
    with_residual = cpath.score(model, images, cpath.methods.NeuronIntGrad(rule=rule, nodes=nodes))
    without = cpath.score(model, images, cpath.methods.NeuronIntGrad(rule=rule, nodes=nodes, residual=False))
    torch.testing.assert_close(without.flat, with_residual.flat, **TIGHT)
    assert without.residual is None
    assert with_residual.residual is not None


def test_random_scores_of_a_network_in_half_precision_are_as_fine_as_of_any():
    model, images = zoo.make("residual", torch.bfloat16), zoo.images(dtype=torch.bfloat16)
    scores = cpath.score(model, images, "random")
    assert scores.flat.dtype == torch.float32
    assert min(len(row.unique()) for row in scores.flat) > 0.99 * scores.layout.units
    torch.testing.assert_close(scores.pathway(90).sparsity, torch.full((3,), 90.0).double(), rtol=0, atol=0.1)


class Mixed(nn.Module):
    """z = w·relu(x), computed in float32 behind a bfloat16 site; f₀ = Σ z."""

    weights = torch.tensor([1.0, 1.0005, 1.001, 1.0015])

    def forward(self, x: Tensor) -> Tensor:
        response = F.relu(F.relu(x).float() * self.weights).sum(1, keepdim=True)
        return torch.cat([response, -response], 1)


def test_scores_have_the_precision_of_the_most_precise_site():
    images = torch.ones(1, 4, dtype=torch.bfloat16)  # in which all four weights are 1
    scores = cpath.score(Mixed(), images, "neuron_mct", sites=":relu")
    assert scores.flat.dtype == torch.float32
    assert torch.equal(scores.values[":relu"], torch.ones(1, 4))
    assert torch.equal(scores.values[":relu#2"], Mixed.weights[None])
    order = cpath.score(Mixed(), images, cpath.methods.Greedy(rounds=1), sites=":relu").values[":relu#2"][0]
    assert order.tolist() == sorted(set(order.tolist()))
    # Five of eight neurons tie at 1 and are pruned.
    released = cpath.score(Mixed(), images, cpath.methods.GreedyReleased(rounds=1, sparsity=62.5), sites=":relu")
    assert released.flat.tolist() == [[0] * 5 + [1] * 3]


def test_active_is_what_passes_something_on_whatever_its_sign(images):
    class Gelu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(3, 6)
            self.fc = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.gelu(self.hidden(x.mean((2, 3)))))

    model = zoo.make(Gelu, torch.float64)
    with cpath.observe(model, sites="gelu") as seen, torch.no_grad():
        logits = model(images)
    assert (seen.activations[":gelu"] < 0).any()
    pathway = cpath.find_pathway(model, images, "active", sites="gelu")
    assert torch.equal(pathway.masks[":gelu"], seen.activations[":gelu"] != 0)
    assert torch.equal(pathway.dead(seen.activations), ~pathway.flat)
    with pathway.restrict(model), torch.no_grad():
        assert torch.equal(model(images), logits)


def test_an_empty_pathway_is_warned_of_where_a_sparsity_was_asked_for(images):
    scores = cpath.score(zoo.make("vgg", torch.float64), images, "active")
    with pytest.warns(RuntimeWarning, match=r"at sparsity=99 the pathways of 3 of 3 images are empty.*'active'"):
        assert not scores.pathway(99).flat.any()
    with pytest.warns(cpath.EmptyPathwayWarning) as told:
        scores[:2].pathway(98)
    (warning,) = told
    message = warning.message
    assert (message.method, message.sparsity, message.empty, message.images) == ("active", 98, 2, 2)
    assert warning.filename == __file__
    assert str(pickle.loads(pickle.dumps(message))) == str(message)  # as between processes
    graded = cpath.score(zoo.make("vgg", torch.float64), images, "neuron_mct")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scores.pathway(0).flat.any(1).all()
        assert graded.pathway(90).flat.any(1).all()


# Signs


@pytest.mark.parametrize("method", ["neuron_mct", "neuron_intgrad", "neuron_intgrad_released"])
def test_signed_scores_are_the_contributions(pair, images, method):
    model, network, weights = pair
    scores = cpath.score(model, images, method, target=2, max_batch=2)
    for index, image in enumerate(images):
        for name, values in scores.signed.items():
            if method == "neuron_mct":
                expected = oracle.mct(network, weights, image, 2)[name]
            elif method == "neuron_intgrad":
                expected = oracle.intgrad(network, weights, image, 2, name, oracle.ENDPOINT_9)
            else:
                scales = [(k * (k + 1) / 20, 1 / 11) for k in range(11)]
                expected = oracle.intgrad(network, weights, image, 2, name, scales)
            torch.testing.assert_close(values[index], expected, **TIGHT)
            assert torch.equal(values[index].abs(), scores.values[name][index])


def test_positive_pathways_keep_no_negative_contribution_and_count_all_neurons(pair, images):
    model, network, weights = pair
    scores = cpath.score(model, images, "neuron_mct", target=1)
    for sparsity in (0, 50, 90):
        pathway = scores.pathway(sparsity, positive=True)
        same = cpath.find_pathway(model, images, "neuron_mct", sparsity, target=1, positive=True)
        assert torch.equal(pathway.flat, same.flat)
        for masks, image in zip(pathway.flat, images, strict=True):
            signed = oracle.mct(network, weights, image, 1)
            flat = torch.cat([signed[name].clamp(min=0).flatten() for name in pathway.layout.shapes])
            assert sorting.trues(masks.tolist()) == sorting.kept(flat.tolist(), sparsity)


@pytest.mark.parametrize("method", ["greedy", "dgr", "random", "active", "greedy_released"])
def test_methods_without_a_sign_say_so(images, method):
    scores = cpath.score(zoo.make("vgg", torch.float64), images, zoo.quick(method))
    assert scores.negative is None
    for use in (lambda: scores.signed, lambda: scores.pathway(50, positive=True)):
        with pytest.raises(cpath.InputError, match=f"no signs: method '{method}' knows none"):
            use()


def test_signs_take_a_bit_a_neuron_and_follow_the_images(images):
    scores = cpath.score(zoo.make("vgg", torch.float64), images, "neuron_mct", target=0)
    units = scores.layout.units
    assert scores.negative.shape == (3, (units + 7) // 8)
    assert scores.negative.dtype == torch.uint8
    picked = scores[torch.tensor([2, 0])]
    for name, values in scores.signed.items():
        assert torch.equal(picked.signed[name], values[[2, 0]])
        assert bool((values < 0).any())
