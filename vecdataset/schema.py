"""What a collection declares, and how it stands in the Arrow schema of its dataset.

Physical layout of format version 1:

- `id`: uint64, or utf8 for `uuid`, `string` and `mixed` ids; not null, Lance's
  primary key. A collection without declared `id_type` gets the column with its
  first points.
- `vector`, or `<name>__vector` for named vectors: fixed-size lists of float32 or
  float16, null where a point lacks the vector.
- one column per promoted payload key, null where the key is missing.
- `_extra`: JSON text of what the columns cannot give back exactly.

The declaration is JSON in the schema metadata under `vecdataset`; it never changes.
What changes (thresholds, keys seen in `_extra`) lives in the dataset's config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, cast

import pyarrow as pa

from vecdataset.errors import (
    CorruptionError,
    InvalidInputError,
    NotSupportedError,
    UnknownNameError,
    did_you_mean,
)

FORMAT_VERSION: Final = 1
METADATA_KEY: Final = b"vecdataset"
PRIMARY_KEY: Final = {"lance-schema:unenforced-primary-key": "true"}
JSON_NUMBER: Final = {"vecdataset:json": "number"}
EXTRA: Final = "_extra"
UNNAMED: Final = ""
VECTOR_SUFFIX: Final = "__vector"
SPARSE_TYPE: Final = pa.struct(
    [pa.field("indices", pa.list_(pa.uint32())), pa.field("values", pa.list_(pa.float32()))]
)
PLACE_TYPE: Final = pa.struct([pa.field("lat", pa.float64()), pa.field("lon", pa.float64())])
"""The one JSON object that becomes a column: a place on the globe, in degrees."""
WIDENED: Final = "__widened"
WIDENED_NUMBER: Final = "__widened_json"
NARROWED: Final = "__narrowed"
MAX_SIZE: Final = 65_536
MAX_PROMOTED: Final = 256
DEFAULT_THRESHOLD: Final = 20_000

SYSTEM_COLUMNS: Final = frozenset(
    {
        "id", "score", "_distance", "_score", "_rank", "query_index", "vector", "payload", EXTRA,
        "_rowid", "_rowaddr", "_rowoffset",
        "_row_created_at_version", "_row_last_updated_at_version",
    }
)  # fmt: skip
"""Names that a payload column cannot take; such keys live in `_extra`."""

IdType = Literal["uint64", "uuid", "string", "mixed"]
ID_TYPES: Final[tuple[IdType, ...]] = ("uint64", "uuid", "string", "mixed")


class Distance(StrEnum):
    """How two vectors are compared.

    `score` follows Qdrant: for Cosine and Dot higher is better, for Euclid and Manhattan
    it is the distance, lower is better. `_distance` is always smaller for nearer:
    1 − cosine, −q·x, √Σ(q−x)², Σ|q−x|.
    """

    COSINE = "Cosine"
    DOT = "Dot"
    EUCLID = "Euclid"
    MANHATTAN = "Manhattan"

    @classmethod
    def parse(cls, value: str | Distance) -> Distance:
        """Return the distance of this name; usual other names (`l2`, `ip`, `l1` …) are taken too."""
        found = _DISTANCES.get(str(value).lower())
        if found is None:
            raise UnknownNameError(
                f"distance {value!r} is not known",
                hint=did_you_mean(str(value), [d.value for d in cls], what="distances"),
            )
        return found

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger `score` is a better one."""
        return self in (Distance.COSINE, Distance.DOT)


_DISTANCES: Final = {
    "cosine": Distance.COSINE, "cos": Distance.COSINE,
    "dot": Distance.DOT, "dotproduct": Distance.DOT, "dot_product": Distance.DOT,
    "ip": Distance.DOT, "inner_product": Distance.DOT,
    "euclid": Distance.EUCLID, "euclidean": Distance.EUCLID, "l2": Distance.EUCLID,
    "manhattan": Distance.MANHATTAN, "l1": Distance.MANHATTAN, "cityblock": Distance.MANHATTAN,
}  # fmt: skip

_DATATYPES: Final = {"float32": "float32", "float16": "float16", "uint8": "uint8", "int8": "int8"}


@dataclass(frozen=True, slots=True)
class VectorParams:
    """Declares one dense vector of a collection."""

    size: int
    """Number of dimensions, 1 to 65,536."""
    distance: Distance | str = Distance.COSINE
    """Cosine, Dot, Euclid or Manhattan."""
    datatype: str = "float32"
    """`float32`, `float16`, `uint8` or `int8`; the last two are stored as float16, exactly."""
    multivector: bool = False
    """Whether a point holds a list of such vectors (MaxSim)."""
    index: str | None = None
    """The index kind that `optimize()` builds at the threshold; None lets it choose."""
    quantization: Mapping[str, Any] | str | None = None
    """`scalar`, `product` or `binary`, or Qdrant's or d-vecDB's dict of options."""

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= MAX_SIZE:
            raise InvalidInputError(f"vector size is {self.size!r}; it must be 1 to {MAX_SIZE:,}")
        object.__setattr__(self, "distance", Distance.parse(self.distance))
        if self.datatype not in _DATATYPES:
            raise UnknownNameError(
                f"vector datatype {self.datatype!r} is not known",
                hint=did_you_mean(str(self.datatype), _DATATYPES, what="datatypes"),
            )

    @property
    def metric(self) -> Distance:
        """The distance, as the enum that it has become."""
        return cast("Distance", self.distance)

    @property
    def element(self) -> pa.DataType:
        """The Arrow type of one component on disk."""
        return pa.float32() if self.datatype == "float32" else pa.float16()

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of the column."""
        one = pa.list_(self.element, self.size)
        return pa.list_(one) if self.multivector else one

    def to_json(self) -> dict[str, Any]:
        """Return the declaration as JSON values, without what is default."""
        out: dict[str, Any] = {
            "size": self.size,
            "distance": self.metric.value,
            "datatype": self.datatype,
        }
        if self.multivector:
            out["multivector"] = True
        for key in ("index", "quantization"):
            value = getattr(self, key)
            if value is not None:
                out[key] = dict(value) if isinstance(value, Mapping) else value
        return out


@dataclass(frozen=True, slots=True)
class SparseVectorParams:
    """Declares one sparse vector of a collection."""

    modifier: Literal["idf"] | None = None
    """`idf` scales query values by inverse document frequency, as in Qdrant."""

    def __post_init__(self) -> None:
        if self.modifier not in (None, "idf"):
            raise UnknownNameError(
                f"modifier {self.modifier!r} is not known", hint="it must be None or 'idf'"
            )


def vector_column(name: str) -> str:
    """Return the physical column of the vector `name` (`""` is the unnamed one)."""
    return "vector" if name == UNNAMED else f"{name}{VECTOR_SUFFIX}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadColumn:
    """One promoted payload key."""

    name: str
    type: pa.DataType
    json_number: bool = False
    """A float64 column of JSON ints and floats: an integral value is an int, unless `_extra` says
    otherwise. It lets an int column take its first float without a rewrite of the rows."""

    def to_field(self) -> pa.Field:
        """Return the Arrow field of this column."""
        return pa.field(
            self.name, self.type, nullable=True, metadata=JSON_NUMBER if self.json_number else None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSchema:
    """The declaration of a collection together with its payload columns at one version."""

    vectors: Mapping[str, VectorParams]
    sparse: Mapping[str, SparseVectorParams] = field(default_factory=dict)
    id_type: IdType | None = None
    """None until the first points decide it."""
    payload: Mapping[str, PayloadColumn] = field(default_factory=dict)

    def vector(self, using: str | None) -> tuple[str, VectorParams]:
        """Return name and declaration of the vector `using`; None means the only one.

        Raises:
            UnknownNameError: No such vector, or several and none named.
        """
        if using is None:
            if len(self.vectors) == 1:
                return next(iter(self.vectors.items()))
            if UNNAMED in self.vectors:
                return UNNAMED, self.vectors[UNNAMED]
            raise UnknownNameError(
                f"the collection has {len(self.vectors)} vectors, and none was named",
                hint="pass using=" + " or using=".join(repr(n) for n in self.vectors),
            )
        name = UNNAMED if using == "vector" and UNNAMED in self.vectors else using
        if name not in self.vectors:
            raise UnknownNameError(
                f"vector {using!r} is not declared",
                hint=did_you_mean(using, [n or "vector" for n in self.vectors], what="vectors"),
            )
        return name, self.vectors[name]

    def vector_name(self, using: str) -> str:
        """Return the name of a vector, dense or sparse, or say which there are."""
        return using if using in self.sparse else self.vector(using)[0]

    @property
    def vector_columns(self) -> dict[str, str]:
        """Vector name to physical column, sparse ones included."""
        return {name: vector_column(name) for name in (*self.vectors, *self.sparse)}

    @property
    def vector_types(self) -> dict[str, pa.DataType]:
        """Vector name to Arrow type, sparse ones included."""
        dense = {name: p.arrow_type for name, p in self.vectors.items()}
        return dense | dict.fromkeys(self.sparse, SPARSE_TYPE)

    @property
    def id_arrow_type(self) -> pa.DataType:
        """The Arrow type of the id column."""
        return pa.uint64() if self.id_type == "uint64" else pa.string()

    def to_arrow(self) -> pa.Schema:
        """Return the schema that an empty dataset is created with."""
        fields = []
        if self.id_type is not None:
            fields.append(id_field(self.id_type))
        fields += [pa.field(vector_column(name), p.arrow_type) for name, p in self.vectors.items()]
        fields += [pa.field(vector_column(name), SPARSE_TYPE) for name in self.sparse]
        fields += [column.to_field() for column in self.payload.values()]
        fields.append(pa.field(EXTRA, pa.string()))
        return pa.schema(fields, metadata=self.metadata())

    def metadata(self) -> dict[bytes, bytes]:
        """Return the schema metadata that carries the declaration."""
        declared = {
            "format_version": FORMAT_VERSION,
            "id_type": self.id_type,
            "vectors": {name: p.to_json() for name, p in self.vectors.items()},
        }
        if self.sparse:
            declared["sparse"] = {name: {"modifier": p.modifier} for name, p in self.sparse.items()}
        return {METADATA_KEY: json.dumps(declared, separators=(",", ":")).encode()}

    @classmethod
    def from_arrow(cls, schema: pa.Schema, *, url: str) -> CollectionSchema:
        """Read the declaration back from a dataset's schema.

        Raises:
            InvalidInputError: The dataset is not a collection.
            NotSupportedError: It was written by a newer format version.
        """
        raw = (schema.metadata or {}).get(METADATA_KEY)
        if raw is None:
            raise InvalidInputError(
                f"{url} holds a Lance dataset that is not a vecdataset collection",
                hint=f"vecdataset.adopt({url!r}, id=…) makes it one, in place",
            )
        try:
            declared = json.loads(raw)
            version = int(declared["format_version"])
            vectors = {name: VectorParams(**p) for name, p in declared["vectors"].items()}
            sparse = {name: SparseVectorParams(**p) for name, p in declared.get("sparse", {}).items()}
        except (ValueError, KeyError, TypeError) as exc:
            raise CorruptionError(f"the declaration of collection {url} does not parse: {exc}") from exc
        if version > FORMAT_VERSION:
            raise NotSupportedError(
                f"{url} has format version {version}; this vecdataset reads up to {FORMAT_VERSION}",
                hint="pip install --upgrade vecdataset",
            )
        id_type: IdType | None = declared["id_type"]
        if id_type is None and "id" in schema.names:
            metadata = schema.field("id").metadata or {}
            id_type = cast("IdType", metadata.get(b"vecdataset:id_type", b"uint64").decode())
        own = {"id", EXTRA, *(vector_column(name) for name in (*vectors, *sparse))}
        payload = {f.name: payload_column(f) for f in schema if f.name not in own and not is_passing(f.name)}
        return cls(vectors=vectors, sparse=sparse, id_type=id_type, payload=payload)


def payload_column(f: pa.Field) -> PayloadColumn:
    """Return the payload column that stands behind an Arrow field."""
    number = (f.metadata or {}).get(b"vecdataset:json") == b"number"
    return PayloadColumn(name=f.name, type=f.type, json_number=number)


def id_field(id_type: IdType) -> pa.Field:
    """Return the Arrow field of the id column, Lance's primary key."""
    arrow = pa.uint64() if id_type == "uint64" else pa.string()
    return pa.field("id", arrow, nullable=False, metadata={**PRIMARY_KEY, "vecdataset:id_type": id_type})


def declare(
    vectors: VectorParams | Mapping[str, VectorParams],
    *,
    sparse: Mapping[str, SparseVectorParams] | None = None,
    id_type: str | None = None,
) -> CollectionSchema:
    """Check a declaration and return it as a schema without payload columns."""
    if isinstance(vectors, VectorParams):
        vectors = {UNNAMED: vectors}
    if not isinstance(vectors, Mapping) or not all(isinstance(p, VectorParams) for p in vectors.values()):
        raise InvalidInputError(
            f"vectors is {type(vectors).__name__}; it must be a VectorParams or a dict of them",
            hint="vectors=VectorParams(size=384, distance='Cosine')",
        )
    sparse = dict(sparse or {})
    if not vectors and not sparse:
        raise InvalidInputError("a collection needs at least one vector")
    for name, params in sparse.items():
        if not isinstance(params, SparseVectorParams):
            raise InvalidInputError(
                f"sparse vector {name!r} is {type(params).__name__}; it must be a SparseVectorParams"
            )
        if name in vectors or not name:
            raise InvalidInputError(
                f"{name!r} cannot name a sparse vector", hint="each vector has its own name"
            )
    for name in (*vectors, *sparse):
        if name and (not name.replace("-", "_").isidentifier() or name.startswith("_") or "__" in name):
            raise InvalidInputError(
                f"{name!r} cannot name a vector",
                hint="use letters, digits, '-' and single '_', beginning with a letter",
            )
    if id_type is not None and id_type not in ID_TYPES:
        raise UnknownNameError(
            f"id_type {id_type!r} is not known", hint=did_you_mean(id_type, ID_TYPES, what="id types")
        )
    return CollectionSchema(vectors=dict(vectors), sparse=sparse, id_type=id_type)


def is_passing(name: str) -> bool:
    """Return whether a column of this name stands only while another becomes wider."""
    return name.endswith((WIDENED, WIDENED_NUMBER, NARROWED))


def can_promote(name: str) -> bool:
    """Return whether a payload key of this name can be a column of the dataset."""
    return (
        bool(name)
        and name not in SYSTEM_COLUMNS
        and not name.endswith(VECTOR_SUFFIX)
        and not is_passing(name)
        and not any(c in name for c in ".`\x00")
        and name.isprintable()
    )
