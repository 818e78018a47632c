"""Who we are to S3: credentials, region and endpoint from the environment and AWS's files.

Resolved before Lance is asked, because Lance takes seconds to find out that there are none,
knows profiles only by an environment variable, and says so in its own words. botocore does
the finding when it is installed: profiles, SSO, assumed roles, `credential_process`,
containers. Without it, the environment variables count alone.

The metadata service of a machine is asked only on EC2 or when an environment variable speaks
of it: elsewhere the question costs seconds and has no answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from vecdataset.errors import (
    MissingDependencyError,
    StoragePermissionError,
    UnknownNameError,
    VecDatasetError,
    did_you_mean,
)
from vecdataset.storage.s3_options import S3Options, endpoint_url

__all__ = ["Identity", "Renewal", "identify"]

_REFRESHED_BY_LANCE: Final = frozenset({"iam-role", "container-role", "assume-role-with-web-identity"})
"""Sources that Lance's own chain finds as well, and asks again before the keys expire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Options completed with what the environment says, and where the credentials came from."""

    options: S3Options
    origin: str
    credentials: Any = None
    """botocore's, where they expire and botocore renews them."""


class Renewal:
    """Lance's options with credentials of botocore's that expire: each call returns those that hold now.

    botocore renews them by itself, in the ten minutes before they expire at the latest.
    """

    def __init__(self, identity: Identity, bucket: str) -> None:
        self.origin = identity.origin
        self.failed: Exception | None = None
        """Why the last renewal did not succeed; the options are then those from before."""
        self._identity = identity
        self._bucket = bucket
        self._last = identity.options.for_lance(bucket)

    def __call__(self) -> Mapping[str, str]:
        """Return the options."""
        try:
            now = self._identity.credentials.get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - Lance's own threads ask; told when the store refuses
            self.failed = error
            return self._last
        self.failed = None
        keys = replace(
            self._identity.options, key=now.access_key, secret=now.secret_key, token=now.token or None
        )
        self._last = keys.for_lance(self._bucket)
        return self._last


def identify(options: S3Options) -> Identity:
    """Complete `options` with credentials, region and endpoint.

    Raises:
        StoragePermissionError: No credentials, or their source fails.
        UnknownNameError: No profile of this name.
        MissingDependencyError: A profile is asked for and botocore is not installed.
    """
    if options.profile is None:
        options = _with_place(options, _environment_place())
        if options.key is not None:
            return Identity(options=_with_files(options), origin="the options")
        if options.anon:
            return Identity(options=_with_files(options), origin="nobody: requests are not signed")
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if key and secret:
            found = replace(
                options, key=key, secret=secret, token=os.environ.get("AWS_SESSION_TOKEN") or None
            )
            return Identity(options=_with_files(found), origin="environment variables")
    session = _session(options.profile)
    if session is None:
        if options.profile is not None:
            raise MissingDependencyError.of("botocore", extra="s3", purpose="an AWS profile")
        raise _none_found(" (AWS profiles and roles need: pip install 'vecdataset[s3]')")
    return _from_session(session, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    endpoint: str | None = None
    region: str | None = None
    virtual: bool | None = None


def _with_place(options: S3Options, place: _Place) -> S3Options:
    """Return `options` with what they do not say taken from `place`."""
    return replace(
        options,
        endpoint=options.endpoint or place.endpoint,
        region=options.region or place.region,
        virtual=place.virtual if options.virtual is None else options.virtual,
    ).checked()


def _environment_place() -> _Place:
    env = os.environ
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or env.get("AWS_ENDPOINT")
    return _Place(
        endpoint=endpoint_url("the environment's endpoint", endpoint) if endpoint else None,
        region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or None,
    )


def _with_files(options: S3Options) -> S3Options:
    """Add region and endpoint of the default profile, when neither is known and there are files."""
    config = Path(os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"))
    if options.endpoint or options.region or not config.expanduser().is_file():
        return options
    session = _session(None)
    return options if session is None else _with_place(options, _files_place(session))


def _session(profile: str | None) -> Any:
    """Return botocore's session; None when botocore is not installed."""
    try:
        from botocore.session import Session
    except ImportError:
        return None
    return Session(profile=profile)


def _files_place(session: Any) -> _Place:
    scoped: Mapping[str, Any] = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(scoped.get("services"), {})
    endpoint = services.get("s3", {}).get("endpoint_url") or scoped.get("endpoint_url")
    s3 = scoped.get("s3", {})
    style = s3.get("addressing_style") if isinstance(s3, Mapping) else None
    return _Place(
        endpoint=endpoint_url("the profile's endpoint_url", endpoint) if endpoint else None,
        region=scoped.get("region"),
        virtual={"virtual": True, "path": False}.get(style or ""),
    )


def _from_session(session: Any, options: S3Options) -> Identity:
    from botocore.exceptions import ProfileNotFound

    origin = f"profile {options.profile!r}" if options.profile else ""
    try:
        place = _files_place(session)
        if not _metadata_service_allowed():
            session.get_component("credential_provider").remove("iam-role")
        credentials = session.get_credentials()
        frozen = credentials and credentials.get_frozen_credentials()
    except ProfileNotFound:
        name = options.profile or os.environ.get("AWS_PROFILE", "")
        raise UnknownNameError(
            f"the AWS configuration has no profile {name!r}",
            hint=did_you_mean(name, session.available_profiles, what="profiles"),
        ) from None
    except VecDatasetError:
        raise
    except Exception as error:  # a process, a file or a service of the user's own failed
        text = " ".join(str(error).split())
        raise StoragePermissionError(
            f"credentials could not be had from {origin or 'AWS'}: {type(error).__name__}: {text}"
        ) from error
    options = _with_place(options, place)
    if options.profile is not None:  # asked for by name, it goes before the environment
        options = _with_place(options, _environment_place())
    if not frozen or not frozen.access_key:
        raise _none_found("")
    origin = origin or f"AWS ({credentials.method})"
    if options.profile is None and credentials.method in _REFRESHED_BY_LANCE:
        return Identity(options=options, origin=f"{origin}, refreshed by Lance")
    found = replace(
        options, profile=None, key=frozen.access_key, secret=frozen.secret_key, token=frozen.token or None
    )
    if _expires(credentials):
        return Identity(options=found, origin=f"{origin}, renewed by botocore", credentials=credentials)
    return Identity(options=found, origin=origin)


def _expires(credentials: Any) -> bool:
    from botocore.credentials import RefreshableCredentials

    return isinstance(credentials, RefreshableCredentials)


def _metadata_service_allowed() -> bool:
    env = os.environ
    disabled = env.get("AWS_EC2_METADATA_DISABLED", "").lower()
    if disabled:
        return disabled == "false"
    if any(n.startswith("AWS_EC2_METADATA_SERVICE_ENDPOINT") for n in env):
        return True
    try:
        return Path("/sys/class/dmi/id/sys_vendor").read_text().strip() == "Amazon EC2"
    except OSError:
        return False


def _none_found(more: str) -> StoragePermissionError:
    return StoragePermissionError(
        "no S3 credentials were found in the options, the environment or the AWS configuration",
        hint="pass storage_options={'key': …, 'secret': …} or {'profile': …}, set AWS_ACCESS_KEY_ID and "
        f"AWS_SECRET_ACCESS_KEY, or pass {{'anon': True}} for a public bucket{more}",
    )
