"""The routes to Google Cloud Storage, Azure Blob Storage and the Hugging Face Hub: Lance's own clients.

fsspec's options become Lance's by one table for each store (`cloud_options`). An option that Lance has
no word for sends the request over the bridge, where fsspec's own class serves it. All three stores
create a file only if it is absent when asked to, except the Hub, which is only read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final
from urllib.parse import quote

from vecdataset.errors import (
    InvalidInputError,
    MissingDependencyError,
    NotSupportedError,
    StorageError,
    StoragePermissionError,
    StorageUnreachableError,
    VecDatasetError,
)
from vecdataset.storage.cloud_options import AZURE, GOOGLE, HUB, Dialect, Read
from vecdataset.storage.fsspec_files import FsspecFiles
from vecdataset.storage.location import Commit, Location
from vecdataset.storage.routes import Files

__all__ = ["AzureFileSystem", "GoogleFileSystem", "HubFileSystem"]

_HOSTED: Final = re.compile(r"(?P<container>[^@/]+)@(?P<account>[a-z0-9]+)\.(?:dfs|blob)\.core\.windows\.net")

_MEANINGS: Final[tuple[tuple[str, type[StorageError], str], ...]] = (
    (r"AuthenticationFailed|AuthorizationFailure|status code: 40[13]|status: 40[13]|\b403 Forbidden\b",
     StoragePermissionError, "the store refuses access to {url!r} with these credentials"),
    (r"PermissionDenied|AccessDenied", StoragePermissionError, "the store refuses access to {url!r}"),
    (r"ContainerNotFound|NoSuchBucket", StorageError, "the container of {url!r} does not exist"),
    (r"error sending request|Connection refused|operation timed out|dns error",
     StorageUnreachableError, "the store of {url!r} does not answer"),
    (r"Account must be specified|GenericError: .*[Cc]redential", StoragePermissionError,
     "no credentials were found for {url!r}"),
    (r"status code: 5\d\d|ServerBusy", StorageError, "the store of {url!r} failed, and kept failing"),
)  # fmt: skip
"""What object_store's texts mean (pylance 14.0.2); the first that is found counts."""


class _Cloud:
    """What the three routes have in common."""

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]
    classes: ClassVar[tuple[str, ...]]
    capabilities: frozenset[str] = frozenset({"remote", "write", "atomic-commit"})
    requires: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]
    dialect: ClassVar[Dialect]

    def locate(self, url: str, filesystem: object | None, options: Mapping[str, Any]) -> Location:
        """Return the location of a URL, with everything Lance needs to know; nothing is asked.

        Raises:
            NotSupportedError: Lance has no word for an option; the bridge has.
        """
        del filesystem  # its options say it all
        bucket, path, more = self._split(url)
        found = self.dialect.read({**more, **options})
        shown = "/".join([bucket, *path])
        reason = f"Lance's own client of {self.dialect.store}, {found.identity}"
        if found.unused:
            reason += f"; without use here: {', '.join(found.unused)}"
        return Location(
            url=f"{self.name}://{shown}",
            uri=f"{self.name}://{bucket}/{quote('/'.join(path))}".rstrip("/"),
            options=found.lance,
            filesystem=self.name,
            kind="native",
            remote=True,
            commit=self._commit(found),
            reason=reason,
        )

    def fsspec_options(self, url: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options in fsspec's words, for the bridge."""
        return self.dialect.for_fsspec({**self._split(url)[2], **options})

    def files(self, location: Location) -> Files:
        """Return the files as fsspec's class sees them, with the options that Lance has."""
        import fsspec

        bucket, path, _ = self._split(location.url)
        try:
            filesystem = fsspec.filesystem(self.schemes[0], **self.dialect.from_lance(location.options))
        except ImportError as error:
            raise MissingDependencyError.of(
                self.requires[0],
                extra=self.extra,
                purpose=f"listing and copying files on {self.dialect.store}",
            ) from error
        return FsspecFiles(location, filesystem, "/".join([bucket, *path]))

    def check_reachable(self, location: Location) -> None:
        """Return at once: Lance's client gives up within seconds by itself."""

    def probe_commit(self, location: Location) -> bool:  # noqa: ARG002
        """Return True: these stores keep writers apart, so that nothing needs to be tried."""
        return True

    def translate_error(self, error: BaseException, location: Location) -> VecDatasetError | None:
        """Return what one of Lance's errors says about the store."""
        text = str(error)
        for pattern, kind, meaning in _MEANINGS:
            if re.search(pattern, text):
                return kind(meaning.format(url=location.url))
        return None

    def _commit(self, found: Read) -> Commit:
        return "read-only" if found.anonymous else "atomic"

    def _split(self, url: str) -> tuple[str, list[str], dict[str, Any]]:
        """Return bucket, segments of the path, and the options that the URL itself carries."""
        rest = url.partition("://")[2].strip("/")
        bucket, *path = rest.split("/")
        if not bucket or "@" in bucket or ":" in bucket or "?" in rest:
            raise InvalidInputError(
                f"a URL of {self.dialect.store} is {self.name}://{self.dialect.bucket}/path",
                hint="credentials belong in storage_options",
            )
        if any(s in {"", ".", ".."} or not s.isprintable() for s in path):
            raise InvalidInputError(
                f"{url!r} has an empty, dotted or unprintable segment, which Lance refuses"
            )
        return bucket, path, {}


class GoogleFileSystem(_Cloud):
    """The route of `gs://bucket/path`."""

    name = "gs"
    schemes = ("gs", "gcs")
    classes = ("gcsfs.core.GCSFileSystem", "gcsfs.extended_gcsfs.ExtendedGcsFileSystem")
    requires = ("gcsfs",)
    extra = "gcs"
    dialect = GOOGLE

    def locate(self, url: str, filesystem: object | None, options: Mapping[str, Any]) -> Location:
        """See `_Cloud`; nobody at an endpoint of its own is who tries an emulator, and wants to write there.

        Raises:
            NotSupportedError: So: Lance's client signs whatever it writes.
        """
        location = super().locate(url, filesystem, options)
        if location.commit == "read-only" and "google_base_url" in location.options:
            raise NotSupportedError(
                "Lance's client of Google Cloud Storage writes nothing without a signature"
            )
        return location


class AzureFileSystem(_Cloud):
    """The route of `az://container/path`, and of `abfss://container@account.dfs.core.windows.net/path`."""

    name = "az"
    schemes = ("az", "abfs", "abfss")
    classes = ("adlfs.spec.AzureBlobFileSystem",)
    requires = ("adlfs",)
    extra = "azure"
    dialect = AZURE

    def _split(self, url: str) -> tuple[str, list[str], dict[str, Any]]:
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        hosted = _HOSTED.fullmatch(host)
        if hosted is None:
            return super()._split(url)
        bucket, segments, _ = super()._split(f"{scheme}://{hosted['container']}{slash}{path}")
        return bucket, segments, {"account_name": hosted["account"]}


class HubFileSystem(_Cloud):
    """The route of `hf://datasets/owner/name@revision/path`: reading what others published."""

    name = "hf"
    schemes = ("hf",)
    classes = ("huggingface_hub.hf_file_system.HfFileSystem",)
    capabilities = frozenset({"remote"})
    requires = ("huggingface_hub",)
    extra = "hf"
    dialect = HUB

    def locate(self, url: str, filesystem: object | None, options: Mapping[str, Any]) -> Location:
        """Return the location of a URL; its revision, if it names one, is an option for Lance."""
        location = super().locate(url, filesystem, options)
        kind, owner, name, *rest = [*location.url.removeprefix("hf://").split("/"), "", ""]
        if kind not in {"datasets", "models", "spaces"} or not name:
            raise InvalidInputError(f"{url!r} is not hf://{self.dialect.bucket}/path")
        name, _, revision = name.partition("@")
        if not revision:
            return location
        uri = "/".join(["hf:/", kind, owner, name, *(quote(s) for s in rest if s)])
        return replace(location, uri=uri, options={**location.options, "hf_revision": revision})

    def _commit(self, found: Read) -> Commit:  # noqa: ARG002
        return "read-only"
