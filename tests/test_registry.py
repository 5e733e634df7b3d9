from __future__ import annotations

from collections.abc import Iterator

import pytest

import cpath
from cpath import attribution, methods
from cpath.registry import RESERVED, Registry
from experiments.engine.table import PseudoMethod


class Base:
    name = "unregistered"


class Own(Base):
    pass


@pytest.fixture
def registry() -> Registry[Base]:
    return Registry("thing", Base, "Base", name_as="name", renamed={"old": "new", "older": "new"})


@pytest.fixture(params=[methods, attribution])
def users(request: pytest.FixtureRequest) -> Iterator[tuple[object, type]]:
    """Where users register what is theirs, and what they do."""
    module = request.param
    before = dict(module.base.REGISTRY)
    yield module, methods.Method if module is methods else attribution.Attribution
    assert dict(module.base.REGISTRY) == before


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_is_refused(users, name):
    module, base = users
    with pytest.raises(cpath.InputError, match=rf"name '{name}' is reserved: the tables .* under another name"):
        module.register(name)(type("Own", (base,), {}))


@pytest.mark.parametrize("name", ["a/b", "a|b", "a@90", "a b", "a\n", "\t", "", ".a", "-a", "naïve", None, 3])
def test_what_is_no_name_is_refused(users, name):
    module, base = users
    with pytest.raises(cpath.InputError, match=r"a name consists of letters, digits, '_', '-' and '\.', not "):
        module.register(name)(type("Own", (base,), {}))


def test_the_reserved_names_are_those_of_the_tables():
    assert {"run", "all", "quick", *PseudoMethod} == RESERVED
    assert not RESERVED & {*methods.names(), *attribution.names()}


@pytest.mark.parametrize("name", ["running", "All", "_", "a.b-c_2", "2nd"])
def test_any_other_name_is_taken(registry, name):
    assert registry.register(name)(Own) is Own
    assert isinstance(registry.make(name, {}), Own)
    assert Own.name == name


# Names that have changed


def test_an_old_name_is_answered_with_the_new_one(registry):
    registry.register("new")(Own)
    for old in ("old", "older"):
        with pytest.raises(cpath.UnknownNameError) as error:
            registry.make(old, {})
        assert str(error.value) == f"the thing '{old}' is called 'new' now: use that name."
    with pytest.raises(cpath.UnknownNameError, match=r"unknown thing 'oldest'.*Known: new"):
        registry.make("oldest", {})


def test_an_old_name_may_be_given_to_something_else(registry):
    registry.register("old")(Own)
    assert isinstance(registry.make("old", {}), Own)


@pytest.mark.parametrize(("old", "new"), list(methods.base.REGISTRY.renamed.items()))
def test_methods_that_were_renamed_say_so(old, new):
    assert new in methods.names()
    told = rf"^the {{}} '{old}' is called '{new}' now"
    with pytest.raises(cpath.UnknownNameError, match=told.format("method")):
        methods.get(old)
    with pytest.raises(cpath.UnknownNameError, match=told.format("attribution")):
        attribution.get(old, sparsity=80)
