"""What is in a file of points, looked at without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vecdataset.display import size, text_table
from vecdataset.formats import BATCH_ROWS, Reading, _format_of, _markers
from vecdataset.formats.files import open_source

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a file holds."""

    data: Mapping[str, Any]
    """All that is known, as JSON values."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One row a part, such as the segments of a snapshot."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return dict(self.data)

    def __str__(self) -> str:
        lines = [
            _line(key.removesuffix("_bytes"), _shown(key, value))
            for key, value in self.data.items()
            if key != "collections"
        ]
        for found in self.data.get("collections", ()):
            if "name" in found:
                lines += ["", _line("collection", found["name"])]
            lines.append(_line("points", "unknown" if found["points"] is None else f"{found['points']:,}"))
            lines += [_line(k, _shown(k, found[k])) for k in ("vectors", "sparse") if found.get(k)]
            lines += [_line("loses", loss) for loss in found.get("losses", ())]
            for problem in found["problems"]:
                lines += [_line("problem", problem["what"]), _line("", problem["remedy"])]
        return "\n".join(lines) + (f"\n\n{text_table(self.rows)}" if self.rows else "")


def _line(key: str, text: str) -> str:
    return f"{key:<12}{text}"


def _shown(key: str, value: Any) -> str:
    if key == "size_bytes":
        return size(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} → {v}" if isinstance(v, str) else _vector(k, v) for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _vector(name: str, params: Mapping[str, Any]) -> str:
    if "size" not in params:
        return f"{name} ({params['modifier']})" if params.get("modifier") else name
    many = " each" if params.get("multivector") else ""
    return f"{name or 'vector'} {params['datatype']}[{params['size']}]{many} {params['distance']}"


def inspect(
    source: Any,
    *,
    format: str | None = None,
    verify: bool = False,
    source_options: Mapping[str, Any] | None = None,
) -> Inspection:
    """Look at what is in a file of points; nothing is imported, and no engine is needed.

    Args:
        source: A path, a URL of any fsspec filesystem, a binary file, or `-` for standard input.
        format: As for `load`.
        verify: Also compare a snapshot with the checksum file beside it.
        source_options: fsspec's options for `source`.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: It is damaged, or of no known format.
    """
    with open_source(source, options=source_options, markers=_markers()) as file:
        chosen = _format_of(file, format)
        if chosen.name == "qdrant":
            from vecdataset.formats.qdrant.report import inspected

            data, rows = inspected(file, verify=verify)
            return Inspection(data={"file": file.name, **data}, rows=rows)
        reading: Reading = chosen.read(file, batch_rows=BATCH_ROWS, layout=None)
        try:
            declared = reading.declared
            vectors = declared.vectors if declared is not None else reading.vectors
            sparse = declared.sparse if declared is not None else reading.sparse
            data = {
                "file": file.name,
                "format": chosen.name,
                "layout": reading.layout,
                "columns": list(reading.names),
                "vectors": {n: p.to_json() for n, p in vectors.items()},
                "sparse": {n: {"modifier": p.modifier} for n, p in sparse.items()},
            }
        finally:
            reading.close()
            if hasattr(reading.points, "close"):
                reading.points.close()
    return Inspection(data={k: v for k, v in data.items() if v not in (None, {}, [])})
