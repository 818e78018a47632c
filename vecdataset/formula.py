"""Scores computed from other scores and the payload, by Qdrant's formula JSON.

| expression | value |
|---|---|
| a number | itself |
| `"$score"`, `"$score[i]"` | the score in prefetch i; `defaults`, then 0 where it did not find the point |
| `"key"`, `"a.b"`, `"a[0]"` | a number of the payload; `defaults` where the point has none |
| a filter condition | 1 where it holds, else 0 |
| `{"geo_distance": {"origin": {"lat", "lon"}, "to": key}}` | metres, by the haversine formula |
| `{"datetime": text}`, `{"datetime_key": key}` | seconds since 1970 |
| `sum`, `mult`, `max`, `min` of a list | 0 and 1 for an empty sum and product |
| `neg`, `abs`, `sqrt`, `exp`, `log10`, `ln`, `acosh` | of one expression |
| `{"div": {"left", "right", "by_zero_default"}}` | 0 where left is 0; without the default, x/0 is an error |
| `{"pow": {"base", "exponent"}}` | |
| `lin_decay`, `exp_decay`, `gauss_decay` of `{"x", "target", "scale", "midpoint"}` | 1 at the target (0), \
`midpoint` (0.5) at a distance of `scale` (1) |

Formulas, defaults and errors are Qdrant's, found in lib/segment/src/index/query_optimization/\
rescore_formula of its source and by trying its engine 1.20. As there, a product stops at its first
zero and a quotient at a zero numerator: what stands behind is not looked at. Numbers are float64 (in
Qdrant, constants are float32), and a score that is not finite as a float32 is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.filters import Filter
from vecdataset.filters.conditions import HasVector
from vecdataset.filters.geo import EARTH_RADIUS_M, Place, place_of
from vecdataset.filters.qdrant import looks_like_qdrant
from vecdataset.filters.tree import walk
from vecdataset.filters.values import Instant, as_double, is_number, json_value, parse_instant
from vecdataset.keys import Key
from vecdataset.reader import Reader
from vecdataset.schema import EXTRA, vector_column

Ranking = tuple[np.ndarray, np.ndarray]
"""Row ids, uint64, and their scores."""

_MIDPOINT: Final = 0.5
_SCALE: Final = 1.0


def evaluate(
    reader: Reader, expression: Any, defaults: Mapping[str, Any], lists: Sequence[Ranking]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of all lists, ascending, with their scores by a formula.

    Args:
        reader: The version that the rows belong to.
        expression: Qdrant's formula JSON.
        defaults: Values of variables (`"$score[1]"`, `"key"`) where a point has none.
        lists: What the prefetches found.

    Returns:
        Row ids uint64 `[n]`, each once, and float64 scores `[n]`.

    Raises:
        InvalidInputError: The formula does not parse, a point lacks a value, has one of another type
            or several, or a result is not finite.

    The payload is read once, and only the keys that the formula names.
    """
    formula = _parse(expression, "formula")
    known = {_variable(name, "defaults"): value for name, value in defaults.items()}
    rows = np.unique(np.concatenate([np.zeros(0, np.uint64), *(r for r, _ in lists)]))
    points = _Points(reader, rows, lists, known)
    points.read(formula)
    scores = formula.value(points, np.arange(len(rows)))
    with np.errstate(over="ignore"):
        finite = np.isfinite(scores.astype(np.float32))
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise points.error(at, f"the formula gives {scores[at]}, which is no finite float32")
    return rows, scores


# ------------------------------------------------------------------------- variables


@dataclass(frozen=True, slots=True)
class _Score:
    """`$score[list]`."""

    list: int


def _variable(name: str, where: str) -> _Score | str:
    """Return what a text in a formula names: a score, or a payload key."""
    if not name:
        raise InvalidInputError(f"{where} has an empty text where a variable is due")
    if not name.startswith("$"):
        return name
    if name == "$score":
        return _Score(0)
    digits = name.removeprefix("$score[").removesuffix("]")
    if name != f"$score[{digits}]" or not (digits.isascii() and digits.isdigit()):
        raise InvalidInputError(
            f"{where} names {name!r}; the only variables with a '$' are '$score' and '$score[i]'"
        )
    return _Score(int(digits))


class _Points:
    """The rows that a formula is computed for, with what it reads of them."""

    def __init__(
        self,
        reader: Reader,
        rows: np.ndarray,
        lists: Sequence[Ranking],
        defaults: Mapping[_Score | str, Any],
    ) -> None:
        self.rows = rows
        self.defaults = defaults
        self._reader = reader
        self._lists = lists
        self._table = pa.table({})
        self._values: dict[str, list[list[Any]]] = {}
        self._numbers: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def read(self, formula: _Expression) -> None:
        """Read the payload that a formula names."""
        parts = list(_all(formula))
        keys = {p.key: Key(self._reader, p.key, must_exist=False) for p in parts if isinstance(p, _Read)}
        filters = [p.filter for p in parts if isinstance(p, _Condition)]
        columns = [c for key in keys.values() for c in key.columns]
        columns += self._filter_columns(filters)
        if not len(self.rows) or self._reader.schema.id_type is None:
            return
        # The id is read along: a table of no columns has no rows.
        self._table = self._reader.take(self.rows, list(dict.fromkeys(["id", *columns])))
        for text, key in keys.items():
            if key.plain and _is_number_type(key.column_type):
                column = self._table[key.columns[0]]
                self._numbers[text] = (
                    pc.fill_null(column.cast(pa.float64(), safe=False), 0.0).to_numpy(),
                    column.is_null().to_numpy(),
                )
            else:
                self._values[text] = key.rows(self._table)

    def _filter_columns(self, filters: Sequence[Filter]) -> list[str]:
        schema = self._reader.schema
        asked = {key for f in filters for key in f.keys}
        out = [key for key in asked if key in schema.payload]
        if asked & self._reader.extra_keys:
            out.append(EXTRA)
        names = {node.name for f in filters for node in walk(f.node) if isinstance(node, HasVector)}
        return out + [vector_column(name) for name in names if name in schema.vector_types]

    def score(self, index: int, at: np.ndarray) -> np.ndarray:
        """Return the scores of one prefetch, or the default."""
        default = self.defaults.get(_Score(index))
        out = np.zeros(len(self.rows))
        if default is not None and is_number(default):
            out[:] = as_double(default)
        if index < len(self._lists):
            rows, scores = self._lists[index]
            # Backwards: of a row that stands twice, the first and best score counts.
            out[np.searchsorted(self.rows, rows[::-1])] = scores[::-1]
        found: np.ndarray = out[at]
        return found

    def payload(
        self, key: str, at: np.ndarray, read: Callable[[Any], float | None], expected: str
    ) -> np.ndarray:
        """Return one number a point, read from its value under a key, or from the default."""
        default = json_value(self.defaults.get(key))
        fallback = None if default is None else read(default)
        if key in self._numbers:
            numbers, missing = (column[at] for column in self._numbers[key])
            if read is _as_number and (fallback is not None or not missing.any()):
                return np.where(missing, 0.0 if fallback is None else fallback, numbers)
            values = [[] if m else [n] for m, n in zip(missing, numbers.tolist(), strict=True)]
        else:
            values = [self._values[key][row] for row in at]
        out = np.empty(len(at))
        for place, found in enumerate(values):
            number = read(json_value(found[0])) if len(found) == 1 else None if found else fallback
            if number is None:
                raise self._wrong_value(at[place], key, found, expected)
            out[place] = number
        return out

    def _wrong_value(self, at: Any, key: str, found: list[Any], expected: str) -> InvalidInputError:
        if found:
            return self.error(
                at,
                f"has {found[0] if len(found) == 1 else found!r} under {key!r}; the formula needs {expected}",
            )
        if self.defaults.get(key) is None:
            return self.error(
                at,
                f"has nothing under {key!r}; the formula needs {expected}",
                hint=f"defaults={{{key!r}: …}} says what then counts",
            )
        return self.error(
            at,
            f"has nothing under {key!r}, and the default is {self.defaults[key]!r}; the "
            f"formula needs {expected}",
        )

    def matches(self, filter: Filter, at: np.ndarray) -> np.ndarray:
        """Return 1 where a filter matches, else 0."""
        points = self._reader.frame(self._table.take(pa.array(at))).to_pylist(layout="qdrant")
        return np.fromiter((filter.matches(point) for point in points), np.float64, len(points))

    def error(self, at: Any, what: str, *, hint: str | None = None) -> InvalidInputError:
        """Return an error that names the point."""
        # Read again: the formula alone may need no column at all.
        table = self._reader.take(self.rows[[int(at)]], ["id"])
        (point,) = self._reader.frame(table).to_pylist()
        return InvalidInputError(f"point {point['id']!r} of {self._reader.where}: {what}", hint=hint)


# ----------------------------------------------------------------------- expressions


class _Expression:
    """A part of a formula."""

    __slots__ = ()

    def parts(self) -> Sequence[_Expression]:
        """Return the expressions directly below."""
        return ()

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        """Return float64 values for the points at these places."""
        raise NotImplementedError


def _is_number_type(kind: pa.DataType | None) -> bool:
    return kind is not None and bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _all(expression: _Expression) -> list[_Expression]:
    return [expression, *(found for part in expression.parts() for found in _all(part))]


@dataclass(frozen=True, slots=True)
class _Constant(_Expression):
    number: float

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:  # noqa: ARG002  the same for all
        return np.full(len(at), self.number)


@dataclass(frozen=True, slots=True)
class _ScoreOf(_Expression):
    score: _Score

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        return points.score(self.score.list, at)


@dataclass(frozen=True, slots=True)
class _Read(_Expression):
    """A number made of the payload."""

    key: str
    read: Callable[[Any], float | None]
    expected: str

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        return points.payload(self.key, at, self.read, self.expected)


def _as_number(value: Any) -> float | None:
    return as_double(value) if is_number(value) else None


def _as_seconds(value: Any) -> float | None:
    moment = parse_instant(value) if isinstance(value, str) else value
    # Qdrant keeps microseconds.
    return moment.ns // 1000 / 1e6 if isinstance(moment, Instant) else None


@dataclass(frozen=True, slots=True)
class _Metres(_Expression):
    """The distance of a place in the payload from an origin."""

    origin: Place
    to: _Read
    longitude: _Read

    def parts(self) -> Sequence[_Expression]:
        return (self.to, self.longitude)

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        lat, lon = np.radians(self.to.value(points, at)), np.radians(self.longitude.value(points, at))
        lat_0, lon_0 = math.radians(self.origin.lat), math.radians(self.origin.lon)
        h = np.sin((lat - lat_0) / 2) ** 2 + math.cos(lat_0) * np.cos(lat) * np.sin((lon - lon_0) / 2) ** 2
        metres: np.ndarray = EARTH_RADIUS_M * 2 * np.arcsin(np.sqrt(np.minimum(h, 1.0)))
        return metres


def _on_globe(value: Any) -> Place | None:
    place = place_of(value)
    return place if place is not None and abs(place.lat) <= 90 and abs(place.lon) <= 180 else None


def _latitude(value: Any) -> float | None:
    place = _on_globe(value)
    return None if place is None else place.lat


def _longitude(value: Any) -> float | None:
    place = _on_globe(value)
    return None if place is None else place.lon


@dataclass(frozen=True, slots=True)
class _Condition(_Expression):
    filter: Filter

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        return points.matches(self.filter, at) if len(at) else np.zeros(0)


@dataclass(frozen=True, slots=True)
class _Product(_Expression):
    items: tuple[_Expression, ...]

    def parts(self) -> Sequence[_Expression]:
        return self.items

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        out = np.ones(len(at))
        left = np.arange(len(at))
        for item in self.items:
            found = item.value(points, at[left])
            with np.errstate(over="ignore", invalid="ignore"):
                out[left] *= found
            zero = found == 0
            out[left[zero]] = 0.0
            left = left[~zero]
        return out


@dataclass(frozen=True, slots=True)
class _Fold(_Expression):
    """A sum, maximum or minimum."""

    items: tuple[_Expression, ...]
    fold: Callable[[np.ndarray], np.ndarray]

    def parts(self) -> Sequence[_Expression]:
        return self.items

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        values = np.array([item.value(points, at) for item in self.items]).reshape(len(self.items), len(at))
        with np.errstate(over="ignore", invalid="ignore"):
            return self.fold(values)


@dataclass(frozen=True, slots=True)
class _Quotient(_Expression):
    left: _Expression
    right: _Expression
    by_zero: float | None

    def parts(self) -> Sequence[_Expression]:
        return (self.left, self.right)

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        out = self.left.value(points, at)
        some = np.flatnonzero(out)
        out[out == 0] = 0.0
        right = self.right.value(points, at[some])
        with np.errstate(all="ignore"):
            found = out[some] / right
        if self.by_zero is not None:
            found[right == 0] = self.by_zero
        checked = (right != 0) | (self.by_zero is None)
        _finite(
            points,
            at[some][checked],
            found[checked],
            lambda i: f"{out[some][checked][i]} / {right[checked][i]}",
        )
        out[some] = found
        return out


@dataclass(frozen=True, slots=True)
class _Power(_Expression):
    base: _Expression
    exponent: _Expression

    def parts(self) -> Sequence[_Expression]:
        return (self.base, self.exponent)

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        base, exponent = self.base.value(points, at), self.exponent.value(points, at)
        with np.errstate(all="ignore"):
            out: np.ndarray = np.power(base, exponent)
        _finite(points, at, out, lambda i: f"{base[i]} to the power of {exponent[i]}")
        return out


@dataclass(frozen=True, slots=True)
class _Function(_Expression):
    """A function of one number, which must be finite unless it cannot be otherwise."""

    name: str
    item: _Expression

    def parts(self) -> Sequence[_Expression]:
        return (self.item,)

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        x = self.item.value(points, at)
        with np.errstate(all="ignore"):
            out: np.ndarray = _FUNCTIONS[self.name](x)
        if self.name not in ("neg", "abs"):
            _finite(points, at, out, lambda i: f"{self.name} of {x[i]}")
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decay(_Expression):
    kind: str
    x: _Expression
    target: _Expression = field(default_factory=lambda: _Constant(0.0))
    rate: float
    """What Qdrant calls lambda: the slope, or the logarithm of the midpoint over the scale."""

    def parts(self) -> Sequence[_Expression]:
        return (self.x, self.target)

    def value(self, points: _Points, at: np.ndarray) -> np.ndarray:
        x, target = self.x.value(points, at), self.target.value(points, at)
        with np.errstate(all="ignore"):
            away = np.abs(x - target)
            out: np.ndarray
            if self.kind == "lin_decay":
                out = np.maximum(1.0 - self.rate * away, 0.0)
                return out
            out = np.exp(self.rate * (away if self.kind == "exp_decay" else away * away))
        return out


def _finite(points: _Points, at: np.ndarray, values: np.ndarray, what: Callable[[int], str]) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        first = int(wrong[0])
        raise points.error(at[first], f"{what(first)} in the formula is {values[first]}, not a finite number")


_FUNCTIONS: Final[Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log10": np.log10,
    "ln": np.log,
    "acosh": np.arccosh,
}
_FOLDS: Final[Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    "sum": lambda values: values.sum(axis=0),
    "max": lambda values: np.fmax.reduce(values, axis=0),
    "min": lambda values: np.fmin.reduce(values, axis=0),
}
_DECAYS: Final = ("lin_decay", "exp_decay", "gauss_decay")
_KINDS: Final = (
    *_FUNCTIONS, *_FOLDS, "mult", "div", "pow", "geo_distance", "datetime", "datetime_key", *_DECAYS,
)  # fmt: skip


# --------------------------------------------------------------------------- reading


def _parse(given: Any, where: str) -> _Expression:
    if isinstance(given, str):
        name = _variable(given, where)
        return _ScoreOf(name) if isinstance(name, _Score) else _Read(name, _as_number, "a number")
    if is_number(given) or isinstance(given, np.number):
        return _Constant(_number(given, where))
    if isinstance(given, Filter):
        return _Condition(given)
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            f"{where} is {given!r}; a formula is made of numbers, texts that name variables, and dicts"
        )
    kind = next((k for k in given if k in _KINDS), None)
    if kind is None:
        return _condition(given, where)
    if len(given) != 1:
        raise InvalidInputError(f"{where} has the keys {sorted(given)}; an expression has one")
    return _operation(kind, given[kind], f"{where}.{kind}")


def _condition(given: Mapping[str, Any], where: str) -> _Expression:
    # Not for looks_like_qdrant: a payload key may have these names too.
    by_point = len(given) == 1 and given.keys() <= {"has_id", "has_vector"}
    if not given or not (by_point or looks_like_qdrant(given)):
        name = min(map(str, given), default="")
        raise UnknownNameError(
            f"{where} has the keys {sorted(map(str, given))}; they are neither an expression nor a condition",
            hint=did_you_mean(name, _KINDS, what="expressions"),
        )
    return _Condition(Filter({"must": [given]}))


def _operation(kind: str, given: Any, where: str) -> _Expression:
    if kind in _FUNCTIONS:
        return _Function(kind, _parse(given, where))
    if kind == "mult":
        return _Product(_items(given, where))
    if kind in _FOLDS:
        items = _items(given, where)
        if not items and kind != "sum":
            raise InvalidInputError(f"{where} is empty; {kind} needs at least one expression")
        return _Fold(items, _FOLDS[kind])
    if kind == "datetime":
        seconds = _as_seconds(json_value(given))
        if seconds is None:
            raise InvalidInputError(f"{where} is {given!r}, which is no date or time")
        return _Constant(seconds)
    if kind == "datetime_key":
        return _Read(_key(given, where), _as_seconds, "a date or time")
    if kind == "div":
        body = _body(given, where, ("left", "right"), ("by_zero_default",))
        default = body.get("by_zero_default")
        by_zero = None if default is None else _number(default, f"{where}.by_zero_default")
        return _Quotient(
            _parse(body["left"], f"{where}.left"), _parse(body["right"], f"{where}.right"), by_zero
        )
    if kind == "pow":
        body = _body(given, where, ("base", "exponent"), ())
        return _Power(_parse(body["base"], f"{where}.base"), _parse(body["exponent"], f"{where}.exponent"))
    if kind == "geo_distance":
        body = _body(given, where, ("origin", "to"), ())
        origin, key = _on_globe(body["origin"]), _key(body["to"], f"{where}.to")
        if origin is None:
            raise InvalidInputError(
                f"{where}.origin is {body['origin']!r}; it must be lat (-90 to 90) and lon (-180 to 180)"
            )
        expected = "a place with lat and lon"
        return _Metres(origin, _Read(key, _latitude, expected), _Read(key, _longitude, expected))
    return _decay(kind, given, where)


def _decay(kind: str, given: Any, where: str) -> _Decay:
    body = _body(given, where, ("x",), ("target", "scale", "midpoint"))
    scale = _number(_SCALE if body.get("scale") is None else body["scale"], f"{where}.scale")
    midpoint = _number(_MIDPOINT if body.get("midpoint") is None else body["midpoint"], f"{where}.midpoint")
    if scale <= 0:
        raise InvalidInputError(f"{where}.scale is {scale}; it must be greater than 0")
    linear = kind == "lin_decay"
    if not (0 <= midpoint <= 1 if linear else 0 < midpoint < 1):
        bounds = "0 to 1" if linear else "between 0 and 1"
        raise InvalidInputError(f"{where}.midpoint is {midpoint}; it must be {bounds}")
    rate = (1 - midpoint) / scale if linear else math.log(midpoint) / scale
    target = _Constant(0.0) if body.get("target") is None else _parse(body["target"], f"{where}.target")
    return _Decay(
        kind=kind,
        x=_parse(body["x"], f"{where}.x"),
        target=target,
        rate=rate / scale if kind == "gauss_decay" else rate,
    )


def _items(given: Any, where: str) -> tuple[_Expression, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InvalidInputError(f"{where} is {given!r}; it must be a list of expressions")
    return tuple(_parse(item, f"{where}[{i}]") for i, item in enumerate(given))


def _body(given: Any, where: str, needed: Sequence[str], optional: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidInputError(f"{where} is {given!r}; it must be a dict of {', '.join(needed)}")
    for name in given:
        if name not in (*needed, *optional):
            raise UnknownNameError(
                f"{where} has the key {name!r}, which is not known",
                hint=did_you_mean(str(name), [*needed, *optional], what="keys"),
            )
    for name in needed:
        if given.get(name) is None:
            raise InvalidInputError(f"{where} has no {name!r}")
    return given


def _key(given: Any, where: str) -> str:
    if not isinstance(given, str) or not given:
        raise InvalidInputError(f"{where} is {given!r}; it must be a payload key")
    return given


def _number(given: Any, where: str) -> float:
    if isinstance(given, np.number):
        given = given.item()
    if not is_number(given) or not math.isfinite(as_double(given)):
        raise InvalidInputError(f"{where} is {given!r}; it must be a finite number")
    return float(given)
