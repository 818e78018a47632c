"""The walls of the house: imports point down, and each heavy package has one home."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vecdataset"

LAYERS = [
    "errors",
    "display",
    "caps",
    "registry",
    "schema",
    "filters",
    "ids",
    "vectors",
    "sparse",
    "scoring",
    "exact",
    "fusion",
    "points",
    "frames",
    "storage",
    "ledger",
    "origins",
    "engine",
    "postings",
    "indexes",
    "selectivity",
    "graphs",
    "idmap",
    "held",
    "warm",
    "infos",
    "reader",
    "keys",
    "ordering",
    "scroll",
    "writer",
    "query",
    "text",
    "spaces",
    "steps",
    "formula",
    "pipeline",
    "grouping",
    "adoption",
    "manifests",
    "sealing",
    "copying",
    "checkouts",
    "archives",
    "differences",
    "snapshots",
    "repair",
    "maintenance",
    "collection",
    "multi",
    "opening",
    "catalog",
    "backup",
    "formats",
    "conformance",
    "duckdb",
    "demo",
    "shell",
    "cli_snapshots",
    "cli",
]

HOMES = {
    "lance": {"engine"},
    "duckdb": {"duckdb"},
    "fsspec": {"storage", "formats"},
    "s3fs": {"storage"},
    "boto3": {"storage"},
    "botocore": {"storage"},
    "polars": {"frames"},
    "pandas": {"frames"},
    "click": {"shell", "cli", "cli_snapshots"},
    "usearch": {"graphs"},
    "tqdm": {"shell"},
    "qdrant_edge": {"formats/qdrant"},
    "httpx": {"formats/qdrant"},
    "rocksdict": {"formats/qdrant"},
    "cbor2": {"formats/qdrant"},
}
"""A home is a room, or a folder in it."""

UPWARD_AT_RUN_TIME = {("collection", "formats")}
"""`Collection.export` asks the formats when it is called: a door for users, not a dependency."""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def imports(path):
    """Yield (module, inside a TYPE_CHECKING block) for every import of a file."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in guarded
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "vecdataset":
                for alias in node.names:
                    yield f"vecdataset.{alias.name}", id(node) in guarded
            else:
                yield node.module, id(node) in guarded


def test_every_module_has_a_floor():
    assert {room for room, _ in modules()} <= set(LAYERS)


@pytest.mark.parametrize(("room", "path"), list(modules()), ids=lambda v: getattr(v, "stem", v))
def test_imports_point_down(room, path):
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] != "vecdataset" or len(parts) == 1 or parts[1] == room:
            continue
        if (room, parts[1]) in UPWARD_AT_RUN_TIME or parts[1] not in LAYERS:
            continue

        assert LAYERS.index(parts[1]) < LAYERS.index(room), f"{path.name} imports {name}"


@pytest.mark.parametrize(("room", "path"), list(modules()), ids=lambda v: getattr(v, "stem", v))
def test_heavy_packages_stay_at_home(room, path):
    for name, type_only in imports(path):
        homes = HOMES.get(name.split(".")[0])
        address = f"{path.relative_to(PACKAGE).with_suffix('').as_posix()}/"

        assert homes is None or type_only or any(address.startswith(f"{home}/") for home in homes), (
            f"{path.name} imports {name}"
        )


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    loaded = loaded_by("import vecdataset")

    assert not loaded & {"lance", "pyarrow", "numpy", "duckdb", "fsspec", "polars", "pandas", "click"}


def test_opening_a_collection_does_not_import_what_the_user_did_not_ask_for():
    loaded = loaded_by(
        "import vecdataset as vd; vd.create('memory://quiet', vectors=vd.VectorParams(size=2))"
    )

    # Not pandas: pyarrow imports it by itself, where it is installed, with the first array it makes.
    assert not loaded & {"polars", "duckdb", "s3fs", "boto3", "tqdm", "click", "torch"}


def test_no_module_is_named_after_nothing():
    forbidden = {"utils", "helpers", "common", "types", "base", "misc"}

    assert not {path.stem for path in PACKAGE.rglob("*.py")} & forbidden
