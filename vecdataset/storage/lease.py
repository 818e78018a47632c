"""One writing process at a time, where the store itself cannot keep writers apart.

A process that writes leaves `_vecdataset/writer.json` beneath the collection: who it is, and
until when. It renews that in the background and takes it away when it ends. Another process
is refused meanwhile. One that died is known at once on the same machine, and elsewhere after
`LASTS_S` seconds, for which the clocks of the machines must agree within that time.

This is a fence against mistakes, not a lock: two that begin in the same fraction of a second
on a store without any exclusive write are told apart by reading back what they wrote.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from vecdataset.errors import NotFoundError, ReadOnlyError, VecDatasetError
from vecdataset.storage.location import Location
from vecdataset.storage.routes import Files, files

__all__ = ["LASTS_S", "PATH", "hold"]

PATH: Final = "_vecdataset/writer.json"
LASTS_S: Final = 60.0
_RENEWED_EVERY_S: Final = 20.0
_SETTLES_S: Final = 0.2


@dataclass(slots=True)
class _Held:
    files: Files
    renewed: float
    """By the monotonic clock."""


_lock = threading.Lock()
_held: dict[str, _Held] = {}
_thread: list[threading.Thread] = []
_mine: dict[int, str] = {}


def hold(location: Location) -> None:
    """Be the one process that writes to a collection.

    Costs nothing while the lease is fresh; else a read and a write, and the first time 0.2 s.

    Raises:
        ReadOnlyError: Another process is.
    """
    with _lock:
        held = _held.get(location.uri)
        if held is not None and time.monotonic() - held.renewed < _RENEWED_EVERY_S:
            return
        place = files(location)
        found = _read(place)
        if found.get("id") != _me():
            if _is_alive(found):
                raise _refusal(location, f"{found.get('pid')} on {found.get('host')}")
            _write(place)
            time.sleep(_SETTLES_S)
            found = _read(place)
            if found.get("id") != _me():
                raise ReadOnlyError(f"another process began to write to {location.url!r} at the same time")
        else:
            _write(place)
        _held[location.uri] = _Held(place, time.monotonic())
        if not _thread:
            _thread.append(threading.Thread(target=_renew, daemon=True, name="vecdataset-lease"))
            _thread[0].start()


def _refusal(location: Location, who: str) -> ReadOnlyError:
    return ReadOnlyError(
        f"another process ({who}) writes to {location.url!r}, and its store cannot keep two writers apart",
        hint="write from one process, or pass storage_options={'commit_lock': a lock that they share}",
    )


def _me() -> str:
    """Return the name of this process; a fork is another one."""
    return _mine.setdefault(os.getpid(), uuid.uuid4().hex)


def _read(place: Files) -> Mapping[str, Any]:
    try:
        found = json.loads(place.read(PATH))
    except (NotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(place: Files) -> None:
    body = {"id": _me(), "host": socket.gethostname(), "pid": os.getpid(), "until": time.time() + LASTS_S}
    place.write(PATH, json.dumps(body).encode())


def _is_alive(found: Mapping[str, Any]) -> bool:
    until = found.get("until")
    if not isinstance(until, int | float) or until < time.time():
        return False
    if found.get("host") == socket.gethostname() and isinstance(found.get("pid"), int):
        try:
            os.kill(found["pid"], 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # somebody else's process, which lives
    return True


def _renew() -> None:
    while True:
        time.sleep(_RENEWED_EVERY_S)
        with _lock:
            for uri, held in list(_held.items()):
                with suppress(VecDatasetError, OSError):
                    if _read(held.files).get("id") != _me():
                        del _held[uri]  # taken over while this process slept: the next write is refused
                        continue
                    _write(held.files)
                    held.renewed = time.monotonic()


@atexit.register
def _release() -> None:
    for held in list(_held.values()):
        with suppress(Exception):
            if _read(held.files).get("id") == _me():
                held.files.delete([PATH])
