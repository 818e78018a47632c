"""The demo: the whole story of a collection on 2,000 real packages, each claim checked as it is made.

Made on local disk from the files in `vecdataset/data`; a claim that does not hold ends the
demo with an error.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.collection import Collection
from vecdataset.display import size, text_table
from vecdataset.errors import CollectionExistsError, VecDatasetError
from vecdataset.formats import load, read_vectors
from vecdataset.formats.inspection import inspect
from vecdataset.opening import open_collection

__all__ = ["data_file", "run"]

NAME: Final = "packages"
_SHOWN: Final = ["name", "section", "summary"]
_SQL: Final = """
CREATE TABLE sizes AS
    SELECT section, median(installed_size_kb)::BIGINT AS usual_kb FROM vec.packages GROUP BY section;
SELECT q.question, r._rank, r.id, r.name, r.section, r.installed_size_kb AS kb, s.usual_kb
FROM read_parquet($questions) q, vec.search('packages', q.embedding, k := 2) r JOIN sizes s USING (section)
ORDER BY q.id, r._rank
"""
_REOPEN: Final = """
import json, sys, vecdataset
packages = vecdataset.open(sys.argv[1])
hits = packages.search(json.loads(sys.stdin.read()), limit=5, filter=sys.argv[2])
print(json.dumps([len(packages), packages.version, hits["id"].to_pylist()]))
"""


def data_file(name: str) -> Path:
    """Return the path of a file of the demo's data: `packages.parquet` or `questions.parquet`."""
    return Path(str(resources.files("vecdataset"))) / "data" / name


def run(folder: str | Path | None = None, *, keep: bool = False) -> None:
    """Run the demo, printing tables and timings.

    Args:
        folder: Where the collection is made; None takes a temporary folder.
        keep: Leave the collection there.

    Raises:
        VecDatasetError: A step failed, or its own check did.
    """
    started = time.perf_counter()
    made = folder is None
    root = Path(tempfile.mkdtemp(prefix="vecdataset-demo-") if folder is None else folder)
    url = str(root.absolute() / NAME)
    if Path(url).exists():
        raise CollectionExistsError(f"{url} is there already", hint="remove it, or pass another --dir")
    story = _Story()
    finished = False
    try:
        packages = story.fill(url)
        story.index(packages)
        story.ask(packages)
        story.ask_in_sql(packages)
        story.filter(packages)
        story.change(packages)
        story.look_back(packages)
        story.reopen(packages)
        story.travel(packages)
        finished = True
    finally:
        if made and not keep:
            shutil.rmtree(root, ignore_errors=True)
        elif not keep:
            shutil.rmtree(url, ignore_errors=True)
    if finished:
        _say(f"\n{story.claims} claims held, in {time.perf_counter() - started:.1f} s.")
    if keep:
        _say(f"The collection is {url}. Go on with:")
        _say(f"  vecdataset info {url}\n  vecdataset search {url} --like 14600 --filter section=games")


class _Story:
    """The steps, and what they have in common: the questions, and how many claims held."""

    def __init__(self) -> None:
        import pyarrow.parquet as pq

        self.questions: list[str] = pq.read_table(data_file("questions.parquet"))["question"].to_pylist()
        self.vectors = np.array(read_vectors(data_file("questions.parquet")), np.float32)
        self.claims = 0

    def question(self, words: str) -> tuple[str, np.ndarray]:
        at = next(i for i, q in enumerate(self.questions) if words in q)
        return self.questions[at], self.vectors[at]

    def holds(self, claim: str, fact: bool) -> None:  # noqa: FBT001 - a claim and whether it holds
        """Print a claim that holds; end the demo when it does not."""
        if not fact:
            raise VecDatasetError(f"the demo's own check failed: {claim}")
        self.claims += 1
        _say(f"  ✓ {claim}")

    # -- the steps

    def fill(self, url: str) -> Collection:
        _title("A collection from a Parquet file", f"vecdataset import packages.parquet {url}")
        with _timed("read, checked and committed"):
            packages = load(data_file("packages.parquet"), url)
        info = packages.info()
        _say(f"  {info.rows:,} points in {size(info.size_bytes)}; payload: {', '.join(info.payload)}")
        vector = packages.schema.vectors[""]
        self.holds("every package is there", len(packages) == 2_000)
        self.holds(
            "the vectors were recognised: float16[384]", (vector.size, vector.datatype) == (384, "float16")
        )
        with _timed("upserted the first 100 again"):
            again = packages.upsert(packages.scan().read_all().slice(0, 100))
        self.holds(
            "an upsert replaces, ids stay unique",
            (again.updated, again.inserted, len(packages)) == (100, 0, 2_000),
        )
        return packages

    def index(self, packages: Collection) -> None:
        _title("An index", "packages.optimize()")
        # Below 20,000 points a search compares with every vector; here the index is to be seen.
        packages.configure(full_scan_threshold=500, indexing_threshold=500)
        with _timed("built"):
            after = packages.optimize()
        recall = packages.recall(k=10, sample=100)
        self.holds(
            f"the index {recall.index} covers all points",
            recall.index is not None and not after.unindexed_rows,
        )
        self.holds(f"it finds {recall.value:.1%} of the ten nearest", recall.value >= 0.95)

    def ask(self, packages: Collection) -> None:
        _title("Questions", "packages.search(embeddings, limit=2)")
        with _timed(f"answered {len(self.questions)} questions in one call"):
            hits = packages.search(self.vectors, limit=2, columns=_SHOWN, explain=True)
        rows = hits.to_pylist()
        _table({"question": self.questions[r["query_index"]], **_hit(r)} for r in rows[::2])
        exact = packages.search(self.vectors, limit=2, exact=True)
        same = len(set(_pairs(hits)) & set(_pairs(exact))) / len(rows)
        self.holds("the index was asked", hits.plan.index is not None)
        self.holds(f"{same:.0%} of the answers are the exact ones", same >= 0.95)
        chess = [r["name"] for r in rows if "chess" in self.questions[r["query_index"]]]
        self.holds("the chess question found gnome-chess", "gnome-chess" in chess)

    def ask_in_sql(self, packages: Collection) -> None:
        from vecdataset.duckdb import run as run_sql  # DuckDB comes in here

        _title("The same questions in SQL, joined to a table", _SQL.strip().replace("\n", "\n  "))
        file = str(data_file("questions.parquet"))
        with _timed("opened DuckDB, attached, made the table, answered in one statement"):
            found = run_sql(packages, _SQL, parameters={"questions": file})
        assert found is not None
        rows = found.to_pylist()
        _table({k: v for k, v in row.items() if k not in ("_rank", "id")} for row in rows[::2])
        hits = packages.search(self.vectors, limit=2, columns=[])
        self.holds("SQL and Python give the same answers", [r["id"] for r in rows] == hits["id"].to_pylist())
        self.holds("each with what is usual in its section", all(r["usual_kb"] > 0 for r in rows))

    def filter(self, packages: Collection) -> None:
        question, vector = self.question("backup")
        text = "section IN ('utils', 'admin') AND installed_size_kb < 1000"
        _title("A filter", f'packages.search("{question}", filter="{text}")')
        with _timed("searched"):
            hits = packages.search(
                vector, limit=5, filter=text, columns=[*_SHOWN, "installed_size_kb"], explain=True
            )
        _table(_hit(r, "installed_size_kb") for r in hits.to_pylist())
        _say(_indented(str(hits.plan)))
        matching = packages.count(text)
        self.holds(
            f"{matching} packages match, all hits are among them",
            len(hits) == 5
            and all(
                r["section"] in ("utils", "admin") and r["installed_size_kb"] < 1000 for r in hits.to_pylist()
            ),
        )
        rare = {"must": [{"key": "section", "match": {"value": "shells"}}]}
        wanted = packages.count(rare)
        found = packages.search(vector, limit=50, filter=rare)
        self.holds(f"a filter that only {wanted} packages pass gives {wanted} hits", len(found) == wanted > 0)
        small = "installed_size_kb < 2000"
        through = packages.search(self.vectors, limit=10, filter=small, explain=True)
        exact = packages.search(self.vectors, limit=10, filter=small, exact=True)
        same = len(set(_pairs(through)) & set(_pairs(exact))) / len(exact)
        self.holds(
            f"with a filter that most pass the index finds {same:.0%} of the exact hits",
            through.plan.index is not None and same >= 0.95,
        )

    def change(self, packages: Collection) -> None:
        _title("Changes", "packages.set_payload(…), .upsert(…), .delete(filter=…)")
        _, vector = self.question("password")
        best = packages.search(vector, limit=1, filter={"section": "utils"})["id"][0].as_py()
        with _timed("set a payload key, added a package, deleted a section"):
            packages.set_payload({"reviewed": True, "stars": 4.5}, ids=[best])
            new = {
                "id": 100_000,
                "vector": vector,
                "name": "keyring-next",
                "section": "utils",
                "reviewed": True,
            }
            packages.upsert([new])
            gone = packages.delete(filter="section = 'doc'").deleted
        hits = packages.search(vector, limit=3, columns=[*_SHOWN, "reviewed"])
        _table(_hit(r, "reviewed") for r in hits.to_pylist())
        self.holds(
            "the new package is found at once, before any index knows it", hits["id"][0].as_py() == 100_000
        )
        self.holds("new keys are columns to filter by", packages.count("reviewed = true") == 2)
        self.holds(f"{gone} packages are gone, the rest stay", len(packages) == 2_001 - gone and gone > 0)

    def look_back(self, packages: Collection) -> None:
        history = packages.versions().to_pylist()
        before = next(v["version"] for v in reversed(history) if v["rows"] == 2_000)
        _title("Time travel", f"packages.at({before})")
        _table({k: v[k] for k in ("version", "operation", "rows")} for v in history[-5:])
        old = packages.at(before)
        self.holds(f"version {before} still has its 2,000 packages", len(old) == 2_000)
        self.holds("and does not know the new one", len(old.get([100_000])) == 0)

    def reopen(self, packages: Collection) -> None:
        _title("A fresh process", f"vecdataset.open({packages.url!r})")
        _, vector = self.question("load balancer")
        text = "installed_size_kb < 5000"
        here = packages.search(vector, limit=5, filter=text)["id"].to_pylist()
        with _timed("started Python, opened, searched"):
            done = subprocess.run(  # noqa: S603 - this interpreter, and a script of our own
                [sys.executable, "-c", _REOPEN, packages.url, text],
                input=json.dumps(vector.tolist()), capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode:
            raise VecDatasetError(f"the fresh process failed: {done.stderr.strip().splitlines()[-1:]}")
        self.holds(
            "it sees the same version and gives the same answer",
            json.loads(done.stdout) == [len(packages), packages.version, here],
        )
        found = open_collection(packages.url)
        table = pa.table(found)
        self.holds("any Arrow library reads it", table.num_rows == len(packages))

    def travel(self, packages: Collection) -> None:
        _title(
            "A snapshot, to Qdrant and back",
            'packages.snapshots.create("v1"), .at("v1").export("v1.snapshot")',
        )
        with _timed("sealed and verified"):
            sealed = packages.snapshots.create("v1")
            report = packages.snapshots.verify("v1")
        self.holds(f"{len(sealed.files)} files are sealed with SHA-256, and are what they were", bool(report))
        if find_spec("qdrant_edge") is None:
            _say("  The way to Qdrant and back is left out: it needs pip install 'vecdataset[qdrant]'")
            return
        with tempfile.TemporaryDirectory(prefix=".travel-", dir=Path(packages.url).parent) as folder:
            file = str(Path(folder, "v1.snapshot"))
            with _timed("exported, opened again and compared"):
                packages.at("v1").export(file)
            found = inspect(file).data["collections"][0]
            _say(f"  {Path(file).name}: {size(Path(file).stat().st_size)}, {found['points']:,} points")
            self.holds("the archive holds every package", found["points"] == len(packages))
            with _timed("imported"):
                back = load(file, str(Path(folder, "back")))
            here = packages.search(self.vectors, limit=3, exact=True, columns=["name"])
            there = back.search(self.vectors, limit=3, exact=True, columns=["name"])
            same = len(set(_pairs(here)) & set(_pairs(there))) / len(here)
            self.holds(f"all {len(back):,} packages came back", len(back) == len(packages))
            self.holds(f"{same:.0%} of the answers are the same", same >= 0.95)


# ----------------------------------------------------------------------------- printing


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _title(title: str, code: str) -> None:
    _say(f"\n{title}\n  {code}")


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    _say(f"  {what}: {(time.perf_counter() - started) * 1e3:.0f} ms")


def _table(rows: Any) -> None:
    _say(_indented(text_table(rows)))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _hit(row: dict[str, Any], *more: str) -> dict[str, Any]:
    return {"score": row["score"], **{n: row.get(n) for n in (*_SHOWN, *more)}}


def _pairs(hits: Any) -> list[tuple[int, int]]:
    return list(zip(hits["query_index"].to_pylist(), hits["id"].to_pylist(), strict=True))
