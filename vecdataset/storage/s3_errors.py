"""What Lance's errors say about an S3 store, in one sentence and in the user's words.

Lance hands over object_store's text, with the store's XML inside. This is the one place
that reads it (pylance 14.0.2, object_store 0.14).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from vecdataset.errors import (
    NotSupportedError,
    StorageError,
    StoragePermissionError,
    StorageUnreachableError,
    VecDatasetError,
)
from vecdataset.storage.location import Location

__all__ = ["translate"]

_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})|status: (\d{3})")


def translate(error: BaseException, location: Location) -> VecDatasetError | None:
    """Return the error that `error` means; None when it is not the store's doing."""
    text = str(error)
    code = _CODE.search(text)
    if code and code[1] in _BY_CODE:
        return _BY_CODE[code[1]](location)
    for mark, meaning in _BY_TEXT.items():
        if mark in text:
            return meaning(location)
    status = _STATUS.search(text)
    if status:
        number = status[1] or status[2]
        if number in _BY_STATUS:
            return _BY_STATUS[number](location)
        if number.startswith("5"):
            return _failed(location, code[1] if code else f"status {number}")
    return None


_Meaning = Callable[[Location], VecDatasetError]


def _refused(location: Location) -> VecDatasetError:
    return StoragePermissionError(
        f"the store refuses access to {location.url!r} with these credentials",
        hint="reading needs ListBucket and GetObject, writing PutObject and DeleteObject",
    )


def _unknown_key(location: Location) -> VecDatasetError:
    return StoragePermissionError(f"the store of {location.url!r} does not know this access key")


def _wrong_secret(location: Location) -> VecDatasetError:
    return StoragePermissionError(f"the store of {location.url!r} finds that key and secret do not match")


def _expired(location: Location) -> VecDatasetError:
    return StoragePermissionError(
        f"the store of {location.url!r} takes this session token for expired or wrong",
        hint="renew the credentials and open the collection again; is an old AWS_SESSION_TOKEN set?",
    )


def _no_credentials(location: Location) -> VecDatasetError:
    return StoragePermissionError(f"no credentials were found for {location.url!r}")


def _no_bucket(location: Location) -> VecDatasetError:
    bucket = location.url.removeprefix("s3://").partition("/")[0]
    return StorageError(f"the bucket {bucket!r} of {location.url!r} does not exist", hint="create it first")


def _wrong_region(location: Location) -> VecDatasetError:
    return StorageError(
        f"the bucket of {location.url!r} is not in the region {location.options.get('aws_region')!r}",
        hint="pass storage_options={'client_kwargs': {'region_name': …}}",
    )


def _clock(location: Location) -> VecDatasetError:
    return StorageError(f"the clock of this machine is too far from that of the store of {location.url!r}")


def _unreachable(location: Location) -> VecDatasetError:
    return StorageUnreachableError(f"the store of {location.url!r} does not answer")


def _bad_request(location: Location) -> VecDatasetError:
    return StorageError(
        f"no request could be made to {location.url!r}", hint="check endpoint_url and proxies"
    )


def _not_implemented(location: Location) -> VecDatasetError:
    return NotSupportedError(f"the store of {location.url!r} does not implement a request that Lance needs")


def _busy(location: Location) -> VecDatasetError:
    return StorageError(f"the store of {location.url!r} is too busy; it kept asking to slow down")


def _failed(location: Location, what: str) -> VecDatasetError:
    return StorageError(f"the store of {location.url!r} failed: {what}")


_BY_CODE: Final[Mapping[str, _Meaning]] = {
    "AccessDenied": _refused,
    "AllAccessDisabled": _refused,
    "AccountProblem": _refused,
    "InvalidAccessKeyId": _unknown_key,
    "SignatureDoesNotMatch": _wrong_secret,
    "ExpiredToken": _expired,
    "InvalidToken": _expired,
    "TokenRefreshRequired": _expired,
    "NoSuchBucket": _no_bucket,
    "PermanentRedirect": _wrong_region,
    "TemporaryRedirect": _wrong_region,
    "AuthorizationHeaderMalformed": _wrong_region,
    "IllegalLocationConstraintException": _wrong_region,
    "RequestTimeTooSkewed": _clock,
    "NotImplemented": _not_implemented,
    "SlowDown": _busy,
    "ServiceUnavailable": _busy,
}

_BY_TEXT: Final[Mapping[str, _Meaning]] = {
    "builder error": _bad_request,
    "no providers in chain": _no_credentials,
    "CredentialsNotLoaded": _no_credentials,
    "error sending request": _unreachable,
    "Connection refused": _unreachable,
    "connection closed before message": _unreachable,
    "operation timed out": _unreachable,
    "dns error": _unreachable,
    "resolve region": _wrong_region,
    "redirect without LOCATION": _wrong_region,
}

_BY_STATUS: Final[Mapping[str, _Meaning]] = {
    "301": _wrong_region,
    "307": _wrong_region,
    "401": _refused,
    "403": _refused,
    "501": _not_implemented,
    "503": _busy,
}
