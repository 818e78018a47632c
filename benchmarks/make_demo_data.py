"""Cut the demo's data from the 20,000 packages: python benchmarks/make_demo_data.py FOLDER [TARGET].

FOLDER holds `debian-packages-20k.parquet` and `questions.parquet`. The cut has the nearest packages of
each chosen question, so that answers look as they would on all packages, and a random sample
of the rest. The same input gives the same rows.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROWS = 2_000
NEAREST = 30
SEED = 20_240_229
QUESTIONS = [
    "edit audio recordings and apply effects",
    "fast in-memory key-value store",
    "read and write Excel spreadsheets from Python",
    "fonts for Asian languages",
    "recover deleted files from a disk",
    "bioinformatics sequence alignment",
    "backup files incrementally to a remote server",
    "astronomy planetarium",
    "password manager",
    "chess engine",
    "load balancer and reverse proxy",
    "personal finance accounting",
]
COLUMNS = [
    "id", "name", "version", "section", "area", "priority", "installed_size_kb", "download_bytes",
    "homepage", "tags", "essential", "depends", "summary", "description", "embedding",
]  # fmt: skip


def matrix(column):
    return column.combine_chunks().flatten().to_numpy().reshape(len(column), -1).astype(np.float32)


def main(folder, target):
    packages = pq.read_table(folder / "debian-packages-20k.parquet", columns=COLUMNS)
    questions = pq.read_table(folder / "questions.parquet")
    questions = questions.filter(pc.is_in(questions["question"], pa.array(QUESTIONS)))

    scores = matrix(questions["embedding"]) @ matrix(packages["embedding"]).T
    chosen = set(np.argsort(-scores, axis=1)[:, :NEAREST].ravel().tolist())
    others = np.setdiff1d(np.arange(len(packages)), sorted(chosen))
    fill = np.random.default_rng(SEED).choice(others, ROWS - len(chosen), replace=False)
    rows = np.sort(np.concatenate([sorted(chosen), fill]))

    for name, table in (("packages", packages.take(rows)), ("questions", questions)):
        path = target / f"{name}.parquet"
        pq.write_table(table.combine_chunks(), path, compression="zstd", compression_level=19)
        print(f"{path}: {len(table):,} rows, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    here = Path(__file__).parent.parent / "vecdataset" / "data"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else here)
