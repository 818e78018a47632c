"""The S3 protocol, as far as Lance, DuckDB, s3fs and pyarrow speak it, over a `Store`.

Whoever asks needs the token, in the header `x-bridge-token` or as the access key id of a
signature (whose sum is not checked: the token is random and never leaves this machine), and
gets only what stands beneath a prefix that this process has opened.

An error of the filesystem is kept, and its number is told in the answer: the text that comes
back out of Lance leads to the exception again.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import html
import logging
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from typing import Final
from urllib.parse import quote, unquote

from vecdataset.storage.bridge.dialects import Entry
from vecdataset.storage.bridge.multipart import Uploads
from vecdataset.storage.bridge.sources import Source
from vecdataset.storage.bridge.store import Store
from vecdataset.storage.bridge.wire import FilePart, Request, Response, Server

__all__ = ["TOKEN_HEADER", "Gateway"]

TOKEN_HEADER: Final = "x-bridge-token"  # noqa: S105 - its name

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_CREDENTIAL: Final = re.compile(r"Credential=([^/,\s]+)/")
_NUMBER: Final = re.compile(r"vecdataset-bridge-error-(\d+)-")
_DELETED: Final = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)
_PARTS: Final = re.compile(r"<PartNumber>\s*(\d+)\s*</PartNumber>")
_KEPT_ERRORS: Final = 128

_log = logging.getLogger(__name__)


class Gateway:
    """A bucket on loopback that holds the files of one filesystem."""

    def __init__(self, store: Store, *, source: Source, bucket: str, timeout_s: float) -> None:
        self.store = store
        self.source = source
        self.bucket = bucket
        self.requests = 0
        self._patience_s = 5 + 3 * timeout_s
        self._token = secrets.token_hex(16)
        self._prefixes: set[str] = set()
        self._errors: OrderedDict[int, Exception] = OrderedDict()
        self._failed = 0
        self._lock = threading.Lock()
        self._apart: bool | None = None
        self._uploads = Uploads()
        self._server = Server(self.answer)

    def options(self) -> dict[str, str]:
        """Return Lance's `storage_options`: here, without signatures, without a proxy."""
        endpoint = f"http://127.0.0.1:{self._server.port}"
        return {
            # Both endpoints: the environment's AWS_ENDPOINT_URL_S3 wins over one alone.
            "aws_endpoint": endpoint,
            "aws_endpoint_url_s3": endpoint,
            "aws_region": "us-east-1",
            "allow_http": "true",
            "allow_invalid_certificates": "false",
            "aws_virtual_hosted_style_request": "false",
            "aws_skip_signature": "true",
            "aws_unsigned_payload": "false",
            "aws_s3_express": "false",
            "aws_conditional_put": "etag",
            "aws_request_payer": "false",
            # `proxy_excludes` counts only beside a `proxy_url`; port 9 discards.
            "proxy_url": "http://127.0.0.1:9",
            "proxy_excludes": "127.0.0.1",
            f"headers.{TOKEN_HEADER}": self._token,
            # Longer than a call may take here: the answer is then an error that says more.
            "timeout": f"{self._patience_s:.0f}s",
            # Repetitions are made here, where it is known what may be repeated.
            "client_max_retries": "0",
            "lance_aimd_max_retries": "0",
        }

    def allow(self, key: str) -> None:
        """Let requests reach what stands at and beneath a key."""
        self._prefixes.add(key.rstrip("/"))

    def close(self) -> None:
        """Stop answering, and let go of connections and spooled parts."""
        self._server.close()
        self._uploads.close()
        self.store.clones.close()

    def error_in(self, text: str) -> Exception | None:
        """Return the filesystem's exception that an error text of Lance speaks of."""
        number = _NUMBER.search(text)
        return self._errors.get(int(number[1])) if number else None

    def keeps_writers_apart(self, key: str) -> bool:
        """Create a file twice, only if absent, and tell whether the second failed; asked once."""
        if self._apart is None:
            try:
                self.store.create(key, b"1")
                try:
                    self.store.create(key, b"2")
                except FileExistsError:
                    self._apart = True
                else:
                    self._apart = False
            finally:
                with suppress(Exception):  # who may write and not delete leaves one byte behind
                    self.store.delete([key])
        return self._apart

    # -- one request

    def answer(self, request: Request) -> Response:
        """Return the answer to one request; never raises."""
        with self._lock:
            self.requests += 1
        if not self._is_known(request.headers):
            return _error(403, "AccessDenied", "no token")
        bucket, _, key = request.path.removeprefix("/").partition("/")
        if bucket != self.bucket:
            return _error(404, "NoSuchBucket", "another bucket")
        try:
            return self._answer(request, key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return _error(404, "NoSuchKey", "nothing stands here")
        except FileExistsError:
            return _error(412, "PreconditionFailed", "the file exists")
        except _OutsideError:
            return _error(403, "AccessDenied", "not beneath what was opened")
        except Exception as error:  # noqa: BLE001 - kept, and raised by who asked Lance
            return self._failure(error)

    def _is_known(self, headers: Mapping[str, str]) -> bool:
        given = headers.get(TOKEN_HEADER)
        if given is None:
            signed = _CREDENTIAL.search(headers.get("authorization", ""))
            given = signed[1] if signed else ""
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _failure(self, error: Exception) -> Response:
        with self._lock:
            self._failed += 1
            number = self._failed
            self._errors[number] = error
            if len(self._errors) > _KEPT_ERRORS:
                self._errors.popitem(last=False)
        _log.debug("request %d failed: %s", number, type(error).__name__)
        text = f"vecdataset-bridge-error-{number}-{type(error).__name__}"
        if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
            return _error(403, "AccessDenied", text)
        if isinstance(error, NotImplementedError):
            return _error(501, "NotImplemented", text)
        # Not 5xx, at which the client would begin again: this is where it was tried again.
        return _error(400, "BridgeFailure", text)

    def _answer(self, request: Request, key: str) -> Response:
        method, query = request.method, request.query
        if method in {"GET", "HEAD"}:
            if not key:
                return self._list(query)
            self._check(key)
            return self._get(request, key)
        if method == "POST" and "delete" in query:
            return self._delete_many(request)
        self._check(key)
        if method == "PUT":
            if "partNumber" in query:
                return self._put_part(request)
            return self._put(request, key)
        if method == "DELETE":
            if "uploadId" in query:
                self._uploads.abort(query["uploadId"])
            else:
                self.store.delete([key])
            return Response(status=204)
        if method == "POST" and "uploads" in query:
            name = self._uploads.begin()
            return _xml(
                f"<InitiateMultipartUploadResult><Bucket>{self.bucket}</Bucket><Key>{html.escape(key)}</Key>"
                f"<UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            )
        if method == "POST" and "uploadId" in query:
            return self._complete(request, key)
        return _error(405, "MethodNotAllowed", method)

    def _check(self, key: str) -> None:
        """Refuse what is not at or beneath an opened prefix, by whatever dots."""
        parts = key.split("/")
        if ".." in parts or "." in parts:
            raise _OutsideError
        folder = key.rstrip("/")
        while True:
            if folder in self._prefixes:
                return
            if not folder:
                raise _OutsideError
            folder = folder.rpartition("/")[0]

    # -- reading

    def _get(self, request: Request, key: str) -> Response:
        found = self.store.head(key)
        size = found.size or 0
        headers = [("ETag", _etag(found)), ("Last-Modified", _EPOCH), ("Accept-Ranges", "bytes")]
        if request.method == "HEAD":
            return Response(headers=headers, length=size)
        asked = _RANGE.fullmatch(request.headers.get("range", ""))
        if asked is None or asked[0] == "bytes=-":
            return Response(headers=headers, body=self._bytes(key, 0, size, size))
        if asked[1]:
            start, end = int(asked[1]), min(size, int(asked[2]) + 1 if asked[2] else size)
        else:
            start, end = max(0, size - int(asked[2])), size
        if start >= end:
            return Response(status=416, headers=[("Content-Range", f"bytes */{size}")])
        headers.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
        return Response(status=206, headers=headers, body=self._bytes(key, start, end, size))

    def _bytes(self, key: str, start: int, end: int, size: int) -> bytes | FilePart:
        file = self.store.open_local(key, start, end)
        if file is not None:
            return FilePart(file=file, start=start, length=end - start)
        return self.store.read(key, start, end, size=size)

    def _list(self, query: Mapping[str, str]) -> Response:
        prefix = query.get("prefix", "")
        self._check(prefix)
        page = self.store.page(
            prefix,
            delimiter=query.get("delimiter") == "/",
            after=query.get("start-after", ""),
            limit=int(query.get("max-keys", "1000")),
            token=query.get("continuation-token", ""),
        )
        encode = (lambda k: quote(k, safe="/")) if query.get("encoding-type") == "url" else html.escape
        head = (
            "<ListBucketResult>"
            f"<Name>{self.bucket}</Name><Prefix>{encode(prefix)}</Prefix>"
            f"<KeyCount>{len(page.files) + len(page.folders)}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>{'true' if page.token else 'false'}</IsTruncated>"
        )
        parts = [head]
        if page.token:
            parts.append(f"<NextContinuationToken>{page.token}</NextContinuationToken>")
        for entry in page.files:
            name = entry.path.removeprefix(self.store.path(""))
            parts.append(
                f"<Contents><Key>{encode(name)}</Key><LastModified>1970-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{html.escape(_etag(entry))}</ETag><Size>{entry.size or 0}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        parts += [f"<CommonPrefixes><Prefix>{encode(f)}</Prefix></CommonPrefixes>" for f in page.folders]
        parts.append("</ListBucketResult>")
        return _xml("".join(parts))

    # -- writing

    def _put(self, request: Request, key: str) -> Response:
        exclusive = request.headers.get("if-none-match") == "*"
        source = request.headers.get("x-amz-copy-source")
        if source is not None:
            bucket, _, origin = unquote(source).removeprefix("/").partition("/")
            if bucket != self.bucket:
                return _error(404, "NoSuchBucket", "another bucket")
            self._check(origin)
            made = self.store.copy(origin, key, exclusive=exclusive)
            return _xml(f"<CopyObjectResult><ETag>{html.escape(_etag(made))}</ETag></CopyObjectResult>")
        made = self.store.create(key, request.body) if exclusive else self.store.put(key, request.body)
        return Response(headers=[("ETag", _etag(made))])

    def _put_part(self, request: Request) -> Response:
        number, name = int(request.query["partNumber"]), request.query["uploadId"]
        body, source = request.body, request.headers.get("x-amz-copy-source")
        if source is not None:  # how a client copies only if the target is absent
            bucket, _, origin = unquote(source).removeprefix("/").partition("/")
            if bucket != self.bucket:
                return _error(404, "NoSuchBucket", "another bucket")
            self._check(origin)
            size = self.store.head(origin).size or 0
            body = self.store.read(origin, 0, size, size=size)
        self._uploads.add(name, number, body)
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"' if source is not None else f'"{name}-{number}"'
        if source is not None:
            return _xml(f"<CopyPartResult><ETag>{html.escape(etag)}</ETag></CopyPartResult>")
        return Response(headers=[("ETag", etag)])

    def _complete(self, request: Request, key: str) -> Response:
        name = request.query["uploadId"]
        numbers = [int(n) for n in _PARTS.findall(bytes(request.body).decode())]
        path = self._uploads.joined(name, numbers)
        if request.headers.get("if-none-match") == "*":
            made = self.store.create(key, path.read_bytes())
        else:
            made = self.store.upload(key, path)
        self._uploads.abort(name)
        return _xml(
            f"<CompleteMultipartUploadResult><Bucket>{self.bucket}</Bucket><Key>{html.escape(key)}</Key>"
            f"<ETag>{html.escape(_etag(made))}</ETag></CompleteMultipartUploadResult>"
        )

    def _delete_many(self, request: Request) -> Response:
        keys = [html.unescape(k) for k in _DELETED.findall(bytes(request.body).decode())]
        for key in keys:
            self._check(key)
        self.store.delete(keys)
        return _xml(
            "<DeleteResult>"
            + "".join(f"<Deleted><Key>{html.escape(k)}</Key></Deleted>" for k in keys)
            + "</DeleteResult>"
        )


class _OutsideError(Exception):
    """A key that nobody opened."""


_EPOCH: Final = formatdate(0, usegmt=True)


def _etag(entry: Entry) -> str:
    told = hashlib.sha256(f"{entry.etag}\0{entry.size}".encode()).hexdigest()[:32]
    return f'"{told}"'


def _xml(body: str) -> Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>{body}'
    return Response(headers=[("Content-Type", "application/xml")], body=text.encode())


def _error(status: int, code: str, message: str) -> Response:
    text = f"<Error><Code>{code}</Code><Message>{html.escape(message)}</Message></Error>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
    return Response(status=status, headers=[("Content-Type", "application/xml")], body=body)
