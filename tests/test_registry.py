"""Plugins: found by real entry points, loaded late, and never fatal to each other."""

import json
import os
import subprocess
import sys
import warnings
from typing import Protocol

import pytest

from vecdataset.errors import MissingDependencyError, PluginError, UnknownNameError
from vecdataset.registry import PluginWarning, Registry


class Named(Protocol):
    name: str
    capabilities: frozenset[str]


class Working:
    name = "working"
    capabilities = frozenset({"b", "a"})


class Nameless:
    capabilities = frozenset()


class Talkative:
    name = "talkative"
    capabilities = "everything"


class NeedsNothingThere:
    name = "needs"
    capabilities = frozenset()
    requires = ("no_such_module",)
    extra = "some"


class NeedsExtra:
    def __init__(self):
        raise MissingDependencyError.of("nothere", extra="some", purpose="testing")


HERE = __name__


@pytest.fixture
def registry():
    return Registry[Named](
        "flavours",
        {
            "working": f"{HERE}:Working",
            "nameless": f"{HERE}:Nameless",
            "absent": "no_such_package.at_all:Thing",
            "gone": f"{HERE}:NotHere",
            "talkative": f"{HERE}:Talkative",
            "needs": f"{HERE}:NeedsNothingThere",
            "extra": f"{HERE}:NeedsExtra",
        },
        protocol=Named,
        aliases={"works": "working"},
    )


@pytest.fixture
def strangers(plugin_path, monkeypatch):
    for path in reversed(plugin_path):
        monkeypatch.syspath_prepend(path)
    yield
    for name in [m for m in sys.modules if m.startswith("vecdataset_test_plugins")]:
        del sys.modules[name]


def test_a_built_in_is_an_instance_of_the_class_its_string_names(registry):
    assert isinstance(registry.get("working"), Working)


def test_a_plugin_is_loaded_once(registry):
    assert registry.get("working") is registry.get("working")


def test_a_string_may_name_an_object_or_a_module():
    registry = Registry[object]("flavours", {"object": "json:JSONDecoder.decode", "module": "json"})

    assert (registry.get("object"), registry.get("module")) == (json.JSONDecoder.decode, json)


def test_an_alias_leads_to_the_same_plugin(registry):
    assert registry.get("works") is registry.get("working")


def test_names_are_known_without_loading(registry):
    assert registry.names() == ["working", "nameless", "absent", "gone", "talkative", "needs", "extra"]
    assert "works" in registry
    assert "nothing" not in registry
    assert len(registry) == 7


def test_an_unknown_name_is_met_with_a_suggestion(registry):
    with pytest.raises(UnknownNameError, match="flavour 'workin' is not known") as caught:
        registry.get("workin")

    assert caught.value.hint == "did you mean 'working' or 'works'?"


@pytest.mark.parametrize(
    ("name", "cause", "message"),
    [
        ("absent", ModuleNotFoundError, "No module named 'no_such_package'"),
        ("gone", AttributeError, "has no attribute 'NotHere'"),
        ("nameless", AttributeError, "it lacks 'name'"),
        ("talkative", TypeError, "its `capabilities` are a str, not a frozenset"),
    ],
)
def test_a_broken_plugin_says_so_when_asked_for(registry, name, cause, message):
    with pytest.raises(PluginError, match=f"flavour '{name}' of 'vecdataset'") as caught:
        registry.get(name)

    assert message in str(caught.value)
    assert isinstance(caught.value.__cause__, cause)


def test_a_plugin_that_asks_for_an_extra_is_believed(registry):
    with pytest.raises(MissingDependencyError, match="testing needs the package 'nothere'"):
        registry.get("extra")


def test_a_listing_goes_on_past_broken_plugins_and_warns_once(registry):
    with pytest.warns(PluginWarning) as first:
        found = [type(plugin) for plugin in registry]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = [type(plugin) for plugin in registry]

    assert found == again == [Working, NeedsNothingThere]
    assert len(first) == 5


def test_describe_tells_how_each_plugin_fares(registry):
    states = {info.name: (info.state, info.reason, info.install) for info in registry.describe()}

    assert states == {
        "working": ("ok", "", ""),
        "nameless": ("failed", "AttributeError: it lacks 'name'", ""),
        "absent": ("failed", "ModuleNotFoundError: No module named 'no_such_package'", ""),
        "gone": ("failed", f"AttributeError: module '{HERE}' has no attribute 'NotHere'", ""),
        "talkative": ("failed", "TypeError: its `capabilities` are a str, not a frozenset", ""),
        "needs": (
            "missing extra",
            "needs the package 'no_such_module'",
            "pip install 'vecdataset[some]'",
        ),
        "extra": (
            "missing extra",
            "testing needs the package 'nothere'",
            "pip install 'vecdataset[some]'",
        ),
    }


def test_describe_shows_capabilities_and_aliases(registry):
    info = registry.describe()[0]

    assert (info.family, info.origin, info.capabilities, info.aliases) == (
        "flavours",
        "vecdataset",
        ("a", "b"),
        ("works",),
    )


def test_strangers_come_by_entry_points(strangers):
    registry = Registry[Named]("formats", {"working": f"{HERE}:Working"}, protocol=Named)

    assert registry.names() == ["working", "lines", "rare"]
    assert registry.get("lines").capabilities == {"read"}


def test_a_stranger_is_described_with_its_distribution_and_version(strangers):
    registry = Registry[Named]("formats", {})
    info = {i.name: i for i in registry.describe()}

    assert (info["lines"].origin, info["lines"].version) == ("vecdataset-test-plugins", "1.2.3")
    assert (info["rare"].state, info["rare"].install) == (
        "missing extra",
        "pip install 'vecdataset-test-plugins[rare]'",
    )


def test_a_stranger_that_raises_on_import_harms_nobody(strangers):
    registry = Registry[Named]("indexes", {})

    with pytest.warns(PluginWarning, match="ZeroDivisionError: the magic did not work"):
        found = [plugin.name for plugin in registry]

    assert found == ["by_hand", "half_done"]


def test_a_stranger_cannot_replace_a_built_in(strangers):
    registry = Registry[Named]("filesystems", {"local": f"{HERE}:Working"})

    with pytest.warns(PluginWarning, match="'local' of 'vecdataset-test-plugins' is left out"):
        names = registry.names()

    assert names == ["local", "attic"]
    assert isinstance(registry.get("local"), Working)
    assert [i.reason for i in registry.describe() if i.state == "failed"] == [
        "the name 'local' is taken by 'vecdataset'"
    ]


def test_packages_installed_meanwhile_are_seen_after_refresh(plugin_path, monkeypatch):
    registry = Registry[Named]("formats", {})
    before = registry.names()
    for path in plugin_path:
        monkeypatch.syspath_prepend(path)
    registry.refresh()

    assert (before, registry.names()) == ([], ["lines", "rare"])


def test_a_built_in_is_had_without_reading_entry_points(registry, monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", None)

    assert registry.get("working").name == "working"


REPORT = """
import json, warnings
warnings.simplefilter("ignore")
from vecdataset.indexes import kinds
from vecdataset.storage import filesystems, resolve
print(json.dumps({
    "states": {i.name: i.state for r in (kinds, filesystems) for i in r.describe()
               if i.origin != "vecdataset"},
    "route": resolve("loft://box").reason,
}))
"""


def test_the_real_registries_find_the_test_plugins_in_a_fresh_process(plugin_path, tmp_path):
    paths = os.pathsep.join([*plugin_path, *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={"PYTHONPATH": paths, "ATTIC": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "states": {
            "by_hand": "ok",
            "by_magic": "failed",
            "half_done": "failed",
            "attic": "ok",
            "local": "failed",
        },
        "route": "a folder in the attic",
    }


def test_importing_the_registry_imports_nothing_heavy():
    code = "import sys, vecdataset.registry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert not {"importlib.metadata", "importlib_metadata", "pkg_resources"} & set(loaded.split())
