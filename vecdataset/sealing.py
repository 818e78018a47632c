"""Comparing files with what they should be: before a seal, and ever after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from vecdataset import ledger, storage
from vecdataset.engine import Fragment
from vecdataset.errors import CorruptionError, InvalidVectorError, NotFoundError, VecDatasetError
from vecdataset.manifests import SealedFile
from vecdataset.reader import Reader
from vecdataset.schema import vector_column
from vecdataset.storage import Files
from vecdataset.vectors import fit_vectors

THREADS: Final = 4
_PARSED: Final = ("_versions/", "_transactions/")
"""Files that opening the version has read."""

Progress = Callable[[float], None]


def seal_files(
    reader: Reader, known: Mapping[str, SealedFile], progress: Progress | None = None
) -> list[SealedFile]:
    """Return every file of a version with its digest, unless one of them is not what was written.

    Args:
        reader: The version.
        known: Files that a snapshot has sealed: only their sizes are looked at, for verify()
            compares them with that seal.
        progress: Called with the share that is done, 0 to 1.

    The other files are hashed and compared with the digests on record. Those without one, as where
    no digests are kept, are read to the last value instead: rows of their fragments are decoded,
    and ids and vectors checked.

    Raises:
        CorruptionError: A file is missing or changed, or does not decode; the message names it.
    """
    location = reader.table.location
    files = storage.files(location)
    paths = data_paths(reader)
    if location.kind != "shared-memory":  # where a listing reads every file
        sizes = {f.path: f.size for f in files.list_files()}
        gone = [p for p in paths if p not in sizes or (p in known and sizes[p] != known[p].size)]
        _refuse(gone, reader, "is gone, or of another size than its snapshot says")
    sealed = each(paths, lambda p: known.get(p) or sealed_file(files, p), progress)
    # Elsewhere no digests are kept, and the ledger is a request for each commit.
    recorded = ledger.read_ledger(location).digests if location.kind == "local" else {}
    new = [f for f in sealed if f.path not in known]
    changed = [f.path for f in new if recorded.get(f.path, (f.size, f.sha256)) != (f.size, f.sha256)]
    _refuse(changed, reader, "is not what was written")
    unread = {f.path for f in new if f.path not in recorded and not f.path.startswith(_PARSED)}
    if unread and location.kind != "shared-memory":
        problems = deep(reader, only=unread)
        if problems:
            raise CorruptionError(
                f"{reader.where} cannot be sealed: {'; '.join(problems)}",
                hint="`vecdataset verify URL --current --deep` says what is wrong with it",
            )
    return sealed


def _refuse(paths: Sequence[str], reader: Reader, what: str) -> None:
    if paths:
        more = f" (and {len(paths) - 1} more files)" if len(paths) > 1 else ""
        raise CorruptionError(
            f"{paths[0]} of {reader.where} {what}{more}; nothing was sealed",
            hint="restore a snapshot, or a copy of one; `vecdataset verify URL --current` names every file",
        )


def data_paths(reader: Reader) -> list[str]:
    """Return the paths of the files that a version needs, tags left out."""
    return sorted(p for p in reader.table.files() if not p.startswith("_refs/"))


def each(
    items: Sequence[str], work: Callable[[str], SealedFile], progress: Progress | None
) -> list[SealedFile]:
    """Do the work for each in a few threads: hashing releases the interpreter."""
    with ThreadPoolExecutor(THREADS) as pool:
        done = []
        for at, result in enumerate(pool.map(work, items), 1):
            done.append(result)
            if progress is not None:
                progress(at / len(items))
    return done


def sealed_file(files: Files, path: str) -> SealedFile:
    """Hash one file."""
    size, digest = files.digest(path)
    return SealedFile(path=path, size=size, sha256=digest)


def compare(
    files: Files, sealed: Iterable[SealedFile], progress: Progress | None = None
) -> dict[str, tuple[str, ...]]:
    """Return which files are missing, truncated or changed.

    A file that leads out of the collection, through a symbolic link, counts as changed.
    """
    found: dict[str, list[str]] = {"missing": [], "truncated": [], "changed": []}
    by_path = {f.path: f for f in sealed}

    def look(path: str) -> SealedFile:
        try:
            if files.leads_outside(path):
                return SealedFile(path=path, size=by_path[path].size, sha256="")
            return sealed_file(files, path)
        except NotFoundError:
            return SealedFile(path=path, size=-1, sha256="")

    # Large files first: the last thread to finish then has little left to do.
    order = sorted(by_path, key=lambda p: -by_path[p].size)
    for now in each(order, look, progress):
        before = by_path[now.path]
        if now.size < 0:
            found["missing"].append(now.path)
        elif now.size < before.size:
            found["truncated"].append(now.path)
        elif (now.size, now.sha256) != (before.size, before.sha256):
            found["changed"].append(now.path)
    return {what: tuple(sorted(paths)) for what, paths in found.items()}


def deep(reader: Reader, *, rows: int | None = None, only: set[str] | None = None) -> list[str]:
    """Read every value of a version; return what is wrong with it.

    Args:
        reader: The version.
        rows: How many points there must be.
        only: Only fragments with one of these files; None reads all. An index that is new is
            looked at by reading all of the rows.
    """
    problems: list[str] = []
    if reader.schema.id_type is None:
        return problems
    fragments = None
    if only is not None:
        fragments = [f.id for f in reader.table.fragment_list() if _has(f, only)]
        if not fragments:
            return problems
    read = 0
    ids: list[pa.Array] = []
    columns = [f.name for f in reader.table.schema]
    try:
        for batch in reader.table.scan(columns, batch_rows=8_192, fragments=fragments):
            read += batch.num_rows
            ids.append(batch.column("id"))
            for name, params in reader.schema.vectors.items():
                if not params.multivector:
                    stored = batch.column(vector_column(name))
                    fit_vectors(stored, name, params, ids=batch.column("id"), where=reader.where)
    except InvalidVectorError as exc:
        return [exc.message]
    except VecDatasetError as exc:
        return [f"cannot be read: {exc.message}"]
    if rows is not None and fragments is None and read != rows:
        problems.append(f"{read:,} points were read; the manifest says {rows:,}")
    if ids:
        distinct = pc.count_distinct(pa.chunked_array(ids)).as_py()
        if distinct != read:
            problems.append(f"{read - distinct:,} ids stand more than once")
    return problems


def _has(fragment: Fragment, paths: set[str]) -> bool:
    deletions = f"_deletions/{fragment.id}-{fragment.deletions}."
    return any(f"data/{name}" in paths for name in fragment.files) or any(
        p.startswith(deletions) for p in paths
    )
