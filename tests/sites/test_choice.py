"""The entries of ``sites``: their forms, where they are checked, and what the errors say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.sites import check_sites
from tests import zoo


class Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Special(Activation):
    pass


def model() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(192, 4), Activation()), nn.Linear(4, 4), Special(), nn.Linear(4, 4)
    ).eval()


@pytest.mark.parametrize(
    ("given", "entries"),
    [
        ("relu", ("relu",)),
        (["relu", "gelu"], ("relu", "gelu")),
        (iter(["relu"]), ("relu",)),
        (nn.PReLU, ("torch.nn.modules.activation.PReLU",)),
        ([nn.PReLU, "!a.*"], ("torch.nn.modules.activation.PReLU", "!a.*")),
        ("encoder.layers.*.mlp", ("encoder.layers.*.mlp",)),
        ((), ()),
    ],
)
def test_entries_are_text_afterwards(given, entries):
    assert check_sites(given) == entries
    assert check_sites(entries) == entries


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "sites must be names of activation functions, classes of modules or patterns, not 3"),
        ([3], "sites must be names, classes of modules or patterns; 3 is none"),
        ([None], "None is none"),
        ("", "'' is none"),
        (["relu", "!"], "'!' is none"),
        (torch.Tensor, "the class Tensor is none"),
        ([nn.ReLU()], "take the class of a module, ReLU, or its name"),
        ("!relu", r"sites=\('!relu',\) takes sites out of none: name those to choose from"),
    ],
)
def test_what_is_no_entry_is_refused(given, message):
    with pytest.raises(cpath.InputError, match=message):
        check_sites(given)


@pytest.mark.parametrize(
    ("sites", "names"),
    [
        (Activation, ["1.1", "3"]),  # and what is derived from it
        ("Activation", ["1.1", "3"]),
        (Special, ["3"]),
        ("tests.sites.test_choice.Special", ["3"]),
        ("torch.nn.Linear", ["1.0", "2", "4"]),
        ("nn.Linear", None),  # no module of that name was imported
        ("1", ["1"]),
        (("1", "!1.1"), ["1"]),
        ("1.*", ["1.0", "1.1"]),
        ("?", ["0", "1", "2", "3", "4"]),
        (("Linear", "!?"), ["1.0"]),
    ],
)
def test_classes_and_names_choose_modules(sites, names):
    images = zoo.images()
    if names is None:
        with pytest.raises(
            cpath.UnknownNameError, match="no module of the model has a name or a class that matches"
        ):
            cpath.score(model(), images, "active", sites=sites)
        return
    network = model()
    with cpath.observe(network, sites=sites) as seen:
        network(images)
    assert list(seen.activations) == names


def test_an_entry_that_fits_nothing_lists_what_the_model_has_before_the_work():
    network = model()

    def run(*_: object) -> None:
        raise AssertionError("the model was run")

    network.register_forward_pre_hook(run)
    for call in (
        lambda sites: cpath.score(network, zoo.images(), sites=sites),
        lambda sites: cpath.find_pathway(network, zoo.images(), sites=sites),
        lambda sites: cpath.attribute(network, zoo.images(), "gbp", sites=sites),
        lambda sites: cpath.observe(network, sites=sites).__enter__(),
        lambda sites: cpath.Probe(network, zoo.images(), sites=sites),
    ):
        with pytest.raises(cpath.UnknownNameError, match=r"matches '1\.5\.\*'.*modules 0, 1, 1\.0.*Linear \(3×\)"):
            call(("relu", "1.5.*"))
        with pytest.raises(
            cpath.UnknownNameError, match=r"matches 'torch.*PReLU'.*Activation \(1×\), Special \(1×\)"
        ):
            call(nn.PReLU)
        with pytest.raises(
            cpath.UnknownNameError, match=r"function 'reluu'\. Did you mean relu.*No module and no cl"
        ):
            call("reluu")
        with pytest.raises(cpath.UnknownNameError, match=r"function 'geluu'\. Did you mean gelu"):
            call("1.*:geluu")
        with pytest.raises(cpath.UnknownNameError, match=r"matches '7'.*The model has the modules"):
            call("7:gelu")


def test_what_takes_nothing_out_is_told_with_the_names_of_the_sites():
    with pytest.raises(cpath.SiteError, match=r"'!layer1\.\*' takes no site out.*The sites are 1\.1, 3\."):
        cpath.score(model(), zoo.images(), sites=(Activation, "!layer1.*"))
    with pytest.raises(cpath.SiteError, match="no site found"):
        cpath.score(model(), zoo.images(), sites=(Activation, "!*"))


def test_functions_that_the_model_does_not_call_choose_nothing():
    scores = cpath.score(model(), zoo.images(), "active", sites=("relu", "sigmoid", "gelu"))
    assert list(scores.values) == ["1.1:sigmoid", "3:sigmoid"]


def test_masks_tell_misspelt_functions_from_names_of_modules():
    masks = {name: torch.ones(1, 2, dtype=torch.bool) for name in ("act", "blocks.0.act#2", "head:relu")}
    for sites in ("act", "head", ("gelu", "act"), "Act", "blocks.*", "head:relu", nn.PReLU):
        assert cpath.Pathway.from_masks(masks, sites=sites).sites == check_sites(sites)
    with pytest.raises(cpath.UnknownNameError, match=r"unknown activation function 'acts'"):
        cpath.Pathway.from_masks(masks, sites="acts")


def test_choices_are_kept_in_files(tmp_path):
    network, images = model(), zoo.images()
    sites = (Activation, "!3", "1.0")
    scores = cpath.score(network, images, sites=sites)
    scores.save(tmp_path / "scores")
    scores.pathway(50).save(tmp_path / "pathway")
    assert cpath.Scores.load(tmp_path / "scores").sites == ("tests.sites.test_choice.Activation", "!3", "1.0")
    pathway = cpath.Pathway.load(tmp_path / "pathway")
    with pathway.restrict(network) as reached:
        network(images)
    assert reached == {"1.0", "1.1"}


def test_the_error_without_sites_lists_attention_and_classes():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.body, self.fc = nn.Sequential(nn.Linear(3, 4), Activation()), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x.flatten(2).transpose(1, 2))
            return self.fc(self.attention(x, x, x)[0].mean(1))

    with pytest.raises(cpath.SiteError) as error:
        cpath.score(Net().eval(), zoo.images())
    told = str(error.value)
    assert "It calls sigmoid (1×), attention (1×): pass sites=['sigmoid', 'attention']" in told
    for part in ("Activation (1×)", "MultiheadAttention (1×)", "Sequential (1×)", "Linear (2×)"):
        assert part in told
    assert "Net" not in told


def test_entries_that_take_out_every_site_are_named(images):
    model = zoo.make("vgg")
    with pytest.raises(cpath.SiteError, match=r"looked for \(relu\), or !\* takes out all that it does"):
        cpath.score(model, images, sites=("relu", "!*"))
