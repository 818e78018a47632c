"""Where on the globe a value lies; a place is an object `{"lat": …, "lon": …}`, in degrees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vecdataset.filters.values import as_double, is_number, json_value

EARTH_RADIUS_M: Final = 6_371_008.8
"""Mean radius by the IUGG, which Qdrant uses."""


@dataclass(frozen=True, slots=True)
class Place:
    """A point on the globe."""

    lat: float
    lon: float


def place_of(value: Any) -> Place | None:
    """Return the place that a payload value is, if it is one."""
    if not isinstance(value, Mapping):
        return None
    lat, lon = json_value(value.get("lat")), json_value(value.get("lon"))
    if not is_number(lat) or not is_number(lon):
        return None
    place = Place(as_double(lat), as_double(lon))
    return place if math.isfinite(place.lat) and math.isfinite(place.lon) else None


def distance_m(a: Place, b: Place) -> float:
    """Return the great-circle distance in metres, by the haversine formula."""
    lat_a, lat_b = math.radians(a.lat), math.radians(b.lat)
    dlat, dlon = lat_b - lat_a, math.radians(b.lon) - math.radians(a.lon)
    h = math.sin(dlat / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(dlon / 2) ** 2
    return EARTH_RADIUS_M * 2 * math.asin(math.sqrt(min(1.0, h)))


@dataclass(frozen=True, slots=True)
class GeoRadius:
    """Nearer to the centre than a number of metres."""

    center: Place
    radius_m: float

    def check(self, value: Any) -> bool:
        """Test one value."""
        place = place_of(value)
        return place is not None and distance_m(self.center, place) < self.radius_m


@dataclass(frozen=True, slots=True)
class GeoBox:
    """Strictly inside two corners; across the antimeridian when the left one is east of the right."""

    top_left: Place
    bottom_right: Place

    def check(self, value: Any) -> bool:
        """Test one value."""
        place = place_of(value)
        if place is None or not self.bottom_right.lat < place.lat < self.top_left.lat:
            return False
        left, right = self.top_left.lon, self.bottom_right.lon
        if left > right:
            return place.lon > left or place.lon < right
        return left < place.lon < right


@dataclass(frozen=True, slots=True)
class GeoPolygon:
    """Inside a closed ring of at least four places, and outside of its holes; edges are outside."""

    exterior: tuple[Place, ...]
    interiors: tuple[tuple[Place, ...], ...] = ()

    def check(self, value: Any) -> bool:
        """Test one value."""
        place = place_of(value)
        if place is None or _side(place, self.exterior) != 1:
            return False
        return all(_side(place, hole) == -1 for hole in self.interiors)


def _side(place: Place, ring: tuple[Place, ...]) -> int:
    # 1 inside, 0 on the edge, -1 outside: a ray to the east crosses an odd number of edges.
    x, y = place.lon, place.lat
    inside = False
    for a, b in itertools.pairwise(ring):
        cross = (b.lon - a.lon) * (y - a.lat) - (b.lat - a.lat) * (x - a.lon)
        if (
            cross == 0
            and min(a.lon, b.lon) <= x <= max(a.lon, b.lon)
            and min(a.lat, b.lat) <= y <= max(a.lat, b.lat)
        ):
            return 0
        if (a.lat > y) != (b.lat > y) and (cross > 0) == (b.lat > a.lat):
            inside = not inside
    return 1 if inside else -1


def inside(shape: GeoRadius | GeoBox | GeoPolygon, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Return which of many places pass, as `check` says it for one.

    Args:
        shape: A radius, a box or a polygon.
        lat: float64 `[n]`, finite.
        lon: float64 `[n]`, finite.
    """
    if isinstance(shape, GeoBox):
        left, right = shape.top_left.lon, shape.bottom_right.lon
        across = (lon > left) | (lon < right) if left > right else (lon > left) & (lon < right)
        found: np.ndarray = (lat > shape.bottom_right.lat) & (lat < shape.top_left.lat) & across
        return found
    if isinstance(shape, GeoPolygon):
        found = _sides(lat, lon, shape.exterior) == 1
        for hole in shape.interiors:
            found &= _sides(lat, lon, hole) == -1
        return found
    center = shape.center
    lat_a, lat_b = math.radians(center.lat), np.radians(lat)
    dlat, dlon = lat_b - lat_a, np.radians(lon) - math.radians(center.lon)
    h = np.sin(dlat / 2) ** 2 + math.cos(lat_a) * np.cos(lat_b) * np.sin(dlon / 2) ** 2
    distance = EARTH_RADIUS_M * 2 * np.arcsin(np.sqrt(np.minimum(1.0, h)))
    found = distance < shape.radius_m
    # NumPy's sines may differ from the C library's in the last digit.
    for at in np.flatnonzero(np.abs(distance - shape.radius_m) <= 1e-3 + 1e-9 * abs(shape.radius_m)).tolist():
        found[at] = distance_m(center, Place(float(lat[at]), float(lon[at]))) < shape.radius_m
    return found


def _sides(lat: np.ndarray, lon: np.ndarray, ring: tuple[Place, ...]) -> np.ndarray:
    """Return `_side` of many places."""
    odd, edge = np.zeros(len(lat), bool), np.zeros(len(lat), bool)
    for a, b in itertools.pairwise(ring):
        cross = (b.lon - a.lon) * (lat - a.lat) - (b.lat - a.lat) * (lon - a.lon)
        within = (lon >= min(a.lon, b.lon)) & (lon <= max(a.lon, b.lon))
        edge |= (cross == 0) & within & (lat >= min(a.lat, b.lat)) & (lat <= max(a.lat, b.lat))
        odd ^= ((a.lat > lat) != (b.lat > lat)) & ((cross > 0) == (b.lat > a.lat))
    return np.where(edge, 0, np.where(odd, 1, -1))
