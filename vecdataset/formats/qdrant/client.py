"""Qdrant servers over REST: one call, tried again when that is safe; downloads that go on where they broke.

`qdrant://host:6333/collection` names a collection of a server, `qdrants://` one that speaks TLS. The key
comes from `api_key=` or the environment variable `QDRANT_API_KEY`; it stands in no URL, and no text
that this package makes shows it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote, unquote, urlsplit

from vecdataset.errors import (
    CorruptionError,
    InvalidInputError,
    MissingDependencyError,
    NotFoundError,
    OperationTimeoutError,
    StorageError,
    StoragePermissionError,
    StorageUnreachableError,
    UnknownNameError,
    did_you_mean,
)
from vecdataset.storage.location import redact

__all__ = ["Address", "Server", "is_server"]

PORT: Final = 6333
KEY_VARIABLE: Final = "QDRANT_API_KEY"
ATTEMPTS: Final = 5
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
TIMEOUT_S: Final = 30.0
SLOW_TIMEOUT_S: Final = 300.0
"""For a whole snapshot to be made or recovered: no byte comes before it is done."""
_AGAIN: Final = frozenset({429, 502, 503, 504})
_PIECE: Final = 1 << 20
_SCHEMES: Final = {"qdrant": "http", "qdrants": "https"}
_OPTIONS: Final = frozenset({"api_key", "timeout_s", "attempts", "checkpoint", "batch_points"})


def is_server(target: Any) -> bool:
    """Return whether a source or target names a server, or a collection of one."""
    return isinstance(target, str) and target.partition("://")[0].lower() in _SCHEMES and "://" in target


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is, and what of it is meant."""

    base: str
    """`http://host:6333`, perhaps with a path beneath which the server stands."""
    url: str
    """What the user wrote, normalised; every message shows this."""
    collection: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S
    attempts: int = ATTEMPTS

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any] | None = None) -> Address:
        """Return the address of `qdrant://host[:port][/collection]`.

        Args:
            url: The URL; `qdrants://` for TLS.
            options: `api_key`, `timeout_s` of one call, `attempts`.

        Raises:
            InvalidInputError: It is no such URL, or carries a key.
        """
        given = dict(options or {})
        for option in given:
            if option not in _OPTIONS:
                raise UnknownNameError(
                    f"a Qdrant server has no option {option!r}",
                    hint=did_you_mean(option, _OPTIONS, what="options"),
                )
        parts = urlsplit(url)
        if parts.username or parts.password or "@" in parts.netloc or parts.query or parts.fragment:
            raise InvalidInputError(
                f"{redact(url)!r} carries credentials or a query",
                hint=f"set {KEY_VARIABLE}, or pass the option api_key",
            )
        try:
            port = parts.port or PORT
        except ValueError:
            raise InvalidInputError(f"the port of {url!r} is no number") from None
        if not parts.hostname or parts.path.count("/") > 1:
            raise InvalidInputError(f"{url!r} is not qdrant://HOST[:PORT][/COLLECTION]")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else str(parts.hostname)
        name: str | None = unquote(parts.path.strip("/")) or None
        scheme = parts.scheme.lower()
        return cls(
            base=f"{_SCHEMES[scheme]}://{host}:{port}",
            url=f"{scheme}://{host}:{port}{f'/{name}' if name else ''}",
            collection=name,
            api_key=given.get("api_key") or os.environ.get(KEY_VARIABLE) or None,
            timeout_s=float(given.get("timeout_s", TIMEOUT_S)),
            attempts=int(given.get("attempts", ATTEMPTS)),
        )

    def named(self) -> str:
        """Return the name of the collection.

        Raises:
            InvalidInputError: The URL names a server only.
        """
        if self.collection is None:
            raise InvalidInputError(f"{self.url} names a server", hint=f"add a collection: {self.url}/NAME")
        return self.collection


class Server:
    """A Qdrant server; use it in a `with` block."""

    def __init__(self, address: Address) -> None:
        """Prepare; no call is made yet."""
        self.address = address
        httpx = _httpx()
        headers = {"api-key": address.api_key} if address.api_key else {}
        self._http = httpx.Client(
            base_url=address.base,
            headers={**headers, "Accept-Encoding": "identity", "User-Agent": "vecdataset"},
            timeout=httpx.Timeout(address.timeout_s),
            follow_redirects=False,
        )
        self._errors = httpx

    def __repr__(self) -> str:
        return f"Server({self.address.base!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # -- calls

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        repeatable: bool = True,
    ) -> Any:
        """Return the `result` of a call.

        Args:
            method: `GET`, `PUT`, `POST` or `DELETE`.
            path: Begins with `/`; parts are quoted by `part`.
            body: JSON values, or bytes that are JSON already.
            query: Parameters.
            timeout_s: Of each attempt; None takes the address's.
            repeatable: Whether doing it twice is as good as once. Then it is tried again after timeouts,
                broken connections and the statuses 429, 502, 503 and 504; else only where the
                server cannot have seen it.

        Raises:
            NotFoundError: There is no such collection or snapshot.
            StoragePermissionError: The key is wrong or missing.
            InvalidInputError: The server refuses what it was given.
            OperationTimeoutError: It did not answer in time.
            StorageUnreachableError: It cannot be reached.
        """
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()

        def attempt() -> Any:
            response = self._http.request(
                method,
                path,
                content=content,
                params=dict(query or {}),
                headers={"Content-Type": "application/json"} if content else {},
                timeout=timeout_s or self.address.timeout_s,
            )
            return self._result(response, f"{method} {path}")

        return self._tried(attempt, f"{method} {path}", repeatable=repeatable)

    def upload(self, path: str, file: BinaryIO, name: str, *, query: Mapping[str, str]) -> Any:
        """Send a file as the part `snapshot` of a form; it is streamed, and sent again from its beginning."""

        def attempt() -> Any:
            file.seek(0)
            response = self._http.post(
                path,
                files={"snapshot": (name, file, "application/octet-stream")},
                params=dict(query),
                timeout=SLOW_TIMEOUT_S,
            )
            return self._result(response, f"POST {path}")

        return self._tried(attempt, f"POST {path}", repeatable=True)

    def download(
        self,
        path: str,
        target: BinaryIO,
        *,
        size: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> str:
        """Write a file of the server to `target`, and return its SHA-256 in hex.

        A connection that breaks is made again, and the file goes on where it broke, or begins anew
        where the server does not give parts. A compressed answer is refused: bytes would differ from
        what the checksum is of.

        Raises:
            CorruptionError: It has another length than `size`, or comes compressed.
        """
        hashed = hashlib.sha256()
        done = 0

        def attempt() -> None:
            nonlocal hashed, done
            headers = {"Range": f"bytes={done}-"} if done else {}
            with self._http.stream("GET", path, headers=headers, timeout=SLOW_TIMEOUT_S) as response:
                if response.status_code not in (200, 206):
                    response.read()
                    self._result(response, f"GET {path}")
                encoding = response.headers.get("Content-Encoding", "identity")
                if encoding != "identity":
                    raise CorruptionError(
                        f"{self.address.url}{path} comes compressed ({encoding}), unasked",
                        hint="a proxy in between may do that: go round it",
                    )
                if done and response.status_code == 200:
                    target.seek(0)
                    target.truncate()
                    hashed, done = hashlib.sha256(), 0
                for piece in response.iter_raw(_PIECE):
                    target.write(piece)
                    hashed.update(piece)
                    done += len(piece)
                    if progress is not None:
                        progress(done)
            if size is not None and done < size:
                raise self._errors.RemoteProtocolError(f"the answer ends after {done:,} of {size:,} bytes")

        self._tried(attempt, f"GET {path}", repeatable=True, mark=lambda: done)
        if size is not None and done != size:
            raise CorruptionError(f"{self.address.url}{path} has {done:,} bytes; the server says {size:,}")
        return hashed.hexdigest()

    # -- what is often asked

    def version(self) -> str:
        """Return the server's version: the test whether one is there, and the key is right.

        Raises:
            StorageError: Something else than Qdrant answers.
        """
        found = self._tried(lambda: self._json(self._http.get("/"), "GET /"), "GET /", repeatable=True)
        if not isinstance(found, dict) or "qdrant" not in str(found.get("title", "")):
            raise StorageError(f"{self.address.url} answers, but is no Qdrant server")
        self.collections()
        return str(found.get("version", "unknown"))

    def collections(self) -> list[str]:
        """Return the names of the collections, sorted."""
        return sorted(c["name"] for c in self.call("GET", "/collections")["collections"])

    def collection(self, name: str) -> dict[str, Any] | None:
        """Return what `GET /collections/NAME` says; None where there is none."""
        try:
            found: dict[str, Any] = self.call("GET", f"/collections/{part(name)}")
        except NotFoundError:
            return None
        return found

    def count(self, name: str) -> int:
        """Return the exact number of points."""
        path = f"/collections/{part(name)}/points/count"
        return int(self.call("POST", path, {"exact": True}, timeout_s=SLOW_TIMEOUT_S)["count"])

    def scroll(
        self, name: str, *, limit: int, offset: Any = None, full: bool = True
    ) -> Iterator[tuple[list[dict[str, Any]], Any]]:
        """Yield pages of points, each with the offset of the next one, None with the last.

        Args:
            name: The collection.
            limit: Points a page.
            offset: Where to begin, as an earlier page gave it.
            full: With payload and vectors; else ids only.
        """
        path = f"/collections/{part(name)}/points/scroll"
        while True:
            body = {"limit": limit, "with_payload": full, "with_vector": full}
            if offset is not None:
                body["offset"] = offset
            page = self.call("POST", path, body, timeout_s=max(60.0, self.address.timeout_s))
            offset = page.get("next_page_offset")
            yield page["points"], offset
            if offset is None:
                return

    def retrieve(self, name: str, ids: list[int | str]) -> dict[int | str, tuple[Any, dict[str, Any]]]:
        """Return vectors and payloads of points by id; missing ones are absent."""
        body = {"ids": ids, "with_payload": True, "with_vector": True}
        found = self.call("POST", f"/collections/{part(name)}/points", body)
        return {p["id"]: (p.get("vector"), p.get("payload") or {}) for p in found}

    def wait_until_ready(self, *, tries: int = 30, pause_s: float = 1.0) -> None:
        """Wait until the server says that it is ready.

        Raises:
            StorageUnreachableError: It was not after so many tries.
        """
        last: Exception | None = None
        for left in reversed(range(tries)):
            try:
                if self._http.get("/readyz", timeout=self.address.timeout_s).status_code == 200:
                    return
            except self._errors.TransportError as exc:
                last = exc
            if left:
                time.sleep(pause_s)
        raise StorageUnreachableError(f"{self.address.url} was not ready after {tries} tries") from last

    # -- attempts

    def _tried(
        self,
        attempt: Callable[[], Any],
        what: str,
        *,
        repeatable: bool,
        mark: Callable[[], int] | None = None,
    ) -> Any:
        """Call until it works; `mark` says how far it came, and an attempt that came further counts anew."""
        number, seen = 0, 0
        while True:
            number = 1 if mark is not None and mark() > seen else number + 1
            seen = mark() if mark is not None else 0
            try:
                return attempt()
            except self._errors.TransportError as exc:
                unseen = isinstance(exc, self._errors.ConnectError | self._errors.ConnectTimeout)
                if number == self.address.attempts or not (repeatable or unseen):
                    raise self._failure(exc, what) from None
                time.sleep(_delay(number))
            except _BusyError as exc:
                if number == self.address.attempts or not repeatable:
                    raise StorageError(
                        f"{self.address.url} answers {what} with status {exc.status}, {number} times"
                    ) from None
                time.sleep(max(_delay(number), min(exc.after_s, LONGEST_DELAY_S)))

    def _failure(self, exc: Exception, what: str) -> Exception:
        if isinstance(exc, self._errors.TimeoutException):
            return OperationTimeoutError(f"{self.address.url} did not answer {what} in time")
        return StorageUnreachableError(
            f"{self.address.url} cannot be reached for {what}: {exc or type(exc).__name__}",
            hint="is the server running, and the port its REST port (6333)?",
        )

    def _result(self, response: Any, what: str) -> Any:
        found = self._json(response, what)
        if not isinstance(found, dict) or "result" not in found:
            raise StorageError(f"{self.address.url} answers {what} with something that is not Qdrant's")
        return found["result"]

    def _json(self, response: Any, what: str) -> Any:
        status = response.status_code
        if status in _AGAIN:
            raise _BusyError(status, _seconds(response.headers.get("Retry-After")))
        try:
            found = response.json()
        except ValueError:
            found = None
        if 200 <= status < 300:
            if found is None:
                raise StorageError(f"{self.address.url} answers {what} with something that is not JSON")
            return found
        said = _said(found) or response.text[:200]
        if status in (401, 403):
            raise StoragePermissionError(
                f"{self.address.url} refuses the key for {what} (status {status})",
                hint=f"set {KEY_VARIABLE}, or pass the option api_key",
            )
        message = f"{self.address.url} answers {what} with status {status}: {said}"
        if status == 404:
            raise NotFoundError(message)
        if status in (400, 409, 413, 422):
            raise InvalidInputError(message)
        raise StorageError(message)


class _BusyError(Exception):
    """The server cannot now."""

    def __init__(self, status: int, after_s: float) -> None:
        super().__init__(status)
        self.status = status
        self.after_s = after_s


def part(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def _delay(number: int) -> float:
    """Return 0.1, 0.2, 0.4 … seconds, each shortened by chance so that clients do not come in step."""
    full = min(FIRST_DELAY_S * 2 ** (number - 1), LONGEST_DELAY_S)
    return float(full * random.uniform(0.5, 1.0))  # noqa: S311  no secret


def _seconds(text: str | None) -> float:
    return float(text) if text and re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def _said(found: Any) -> str | None:
    status = found.get("status") if isinstance(found, dict) else None
    return str(status["error"]) if isinstance(status, dict) and "error" in status else None


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise MissingDependencyError.of(
            "httpx", extra="qdrant", purpose="talking to a Qdrant server"
        ) from None
    return httpx


def read_checkpoint(path: Path, **expected: str) -> dict[str, Any] | None:
    """Return how far an interrupted run came, None where there was none.

    Raises:
        InvalidInputError: The file is of another run.
    """
    try:
        found = json.loads(path.read_bytes())
        assert isinstance(found, dict)
    except FileNotFoundError:
        return None
    except (ValueError, AssertionError):
        raise InvalidInputError(
            f"the checkpoint {path} does not parse", hint="remove it to begin anew"
        ) from None
    for key, value in expected.items():
        if found.get(key) != value:
            raise InvalidInputError(
                f"the checkpoint {path} is of another run: {key} {found.get(key)!r}, not {value!r}",
                hint="remove it to begin anew, or name another file",
            )
    return found


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint, so that a crash leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def drop_checkpoint(path: Path) -> None:
    """Remove the checkpoint of a run that came to its end."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
