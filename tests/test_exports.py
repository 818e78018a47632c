"""The public names: exactly these, importable, and each with a docstring."""

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import vecdataset as vd

FUNCTIONS = {"adopt", "create", "load", "load_all", "normalize", "open", "search_all"}
VALUES = {
    "Collection", "Catalog", "CollectionInfo", "CollectionSchema", "Distance", "Filter", "Frame", "HeldInfo", "Id",
    "IndexInfo", "LossWarning", "Plan", "Point", "Recall", "ScoredPoints", "SearchParams", "SparseVector",
    "SparseVectorParams", "StepPlan",
    "TextQuery", "VectorParams", "WriteResult",
}  # fmt: skip
ERRORS = {
    "AlreadyExistsError", "CollectionExistsError", "CollectionNotFoundError", "CommitConflictError", "CorruptionError",
    "InvalidFilterError", "InvalidIdError", "InvalidInputError", "InvalidVectorError", "LimitExceededError",
    "MissingDependencyError",
    "NotFoundError", "NotSupportedError", "OperationTimeoutError", "PluginError", "PointExistsError",
    "PointNotFoundError", "ReadOnlyError", "SnapshotNotFoundError", "StorageError", "StoragePermissionError",
    "StorageUnreachableError", "UnknownNameError", "VecDatasetError", "VersionGoneError", "VersionNotFoundError",
}  # fmt: skip
COLLECTION = [
    "name", "url", "schema", "version", "info", "insert", "upsert", "delete", "set_payload",
    "overwrite_payload", "delete_payload", "clear_payload", "update_vectors", "delete_vectors",
    "get", "search", "query", "query_batch", "query_qdrant", "recommend", "discover", "context", "facet",
    "group", "scroll", "iter_batches", "count",
    "text", "hybrid", "create_index", "create_payload_index", "drop_index", "indexes", "optimize", "recall",
    "warm", "cool", "refresh", "at", "versions", "checkout", "publish", "origin", "export", "to_arrow", "to_polars", "to_pandas", "to_lance", "scan",
]  # fmt: skip
CATALOG = ["create", "open", "list", "drop", "undrop", "rename", "alias"]
FRAME = ["to_arrow", "to_polars", "to_pandas", "to_pylist", "__arrow_c_stream__", "__len__", "_repr_html_"]


def test_the_names_are_exactly_these_and_sorted():
    assert set(vd.__all__) == FUNCTIONS | VALUES | ERRORS
    assert vd.__all__ == sorted(vd.__all__)


def test_names_for_type_checkers_are_the_names_at_run_time():
    code = "import vecdataset as vd; print(sorted(set(vd.__all__) ^ set(vd._HOMES)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", vd.__all__)
def test_a_public_name_can_be_imported_and_is_documented(name):
    found = getattr(vd, name)

    assert inspect.getdoc(found)
    assert name in dir(vd)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Colection'"):
        vd.Colection  # noqa: B018


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_take_at_most_two_positional_arguments(name):
    parameters = inspect.signature(getattr(vd, name)).parameters.values()

    assert sum(p.kind not in {p.KEYWORD_ONLY, p.VAR_KEYWORD} for p in parameters) <= 2


@pytest.mark.parametrize(
    ("owner", "names"),
    [(vd.Collection, COLLECTION), (vd.Catalog, CATALOG), (vd.Frame, FRAME), (vd.ScoredPoints, FRAME)],
)
def test_the_methods_that_scripts_rely_on_are_there(owner, names):
    assert [n for n in names if not hasattr(owner, n)] == []


def modules():
    import vecdataset

    names = [m.name for m in pkgutil.walk_packages(vecdataset.__path__, "vecdataset.")]
    return [importlib.import_module(n) for n in names]


def public_members():
    for module in modules():
        for name in getattr(module, "__all__", []):
            found = getattr(module, name)
            if inspect.isclass(found) or inspect.isfunction(found):
                yield f"{module.__name__}.{name}", found
            if inspect.isclass(found):
                for attribute, value in vars(found).items():
                    if not attribute.startswith("_") and (
                        inspect.isfunction(value) or isinstance(value, property)
                    ):
                        yield f"{module.__name__}.{name}.{attribute}", value


def test_everything_public_is_documented():
    missing = [name for name, value in public_members() if not inspect.getdoc(value)]

    # The name of a test is its sentence.
    assert [name for name in missing if not name.rpartition(".")[2].startswith("test_")] == []


def test_every_module_says_what_it_owns():
    assert [m.__name__ for m in modules() if not m.__doc__] == []


@pytest.mark.parametrize("name", sorted(VALUES))
def test_values_are_frozen(name):
    found = getattr(vd, name)

    assert not dataclasses.is_dataclass(found) or found.__dataclass_params__.frozen
