"""Options of Google's, Azure's and the Hub's stores: fsspec's names, and what they are for Lance.

Users speak gcsfs, adlfs or huggingface_hub, or Lance. An option is used, is named as one that only
tunes fsspec, is refused as unknown, or raises `NotSupportedError`, which sends the request over
the bridge. Booleans that Lance would otherwise take from its environment variables are always
written out. (Names of Lance's options: object_store 0.14, as pylance 14.0.2 has it.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from vecdataset.errors import (
    InvalidInputError,
    NotSupportedError,
    StoragePermissionError,
    UnknownNameError,
    did_you_mean,
)
from vecdataset.storage.patience import patience, seconds, whole_seconds
from vecdataset.storage.s3_options import endpoint_url, is_loopback

__all__ = ["AZURE", "GOOGLE", "HUB", "Dialect", "Read"]

_COMMON: Final = frozenset(
    {
        "allow_http", "allow_invalid_certificates", "connect_timeout", "request_timeout", "timeout",
        "user_agent", "proxy_url", "proxy_ca_certificate", "proxy_excludes", "client_max_retries",
        "client_retry_timeout",
        "download_retry_count", "pool_idle_timeout", "pool_max_idle_per_host",
    }
)  # fmt: skip
"""Options of every HTTP store of Lance."""

_FSSPEC: Final = frozenset(
    {
        "asynchronous", "batch_size", "block_size", "blocksize", "cache_timeout", "consistency",
        "default_block_size", "default_cache_type", "default_fill_cache", "default_location",
        "listings_expiry_time",
        "loop", "max_concurrency", "max_paths", "max_workers", "project", "skip_instance_cache",
        "use_listings_cache", "assume_container_exists", "expand_info", "access", "location_mode",
        "finalize_on_close", "mrd_pool_cache_size", "max_mrd_pool_cache_queue_size", "live_follow",
    }
)  # fmt: skip
"""Options that tune fsspec's classes and mean nothing to Lance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a user's options say."""

    lance: dict[str, str] = field(repr=False)
    """Lance's `storage_options`; they hold credentials."""
    identity: str
    """Who is asking, in a few words."""
    anonymous: bool = False
    """Requests are not signed, so that nothing can be written."""
    unused: tuple[str, ...] = ()
    """Options that tune fsspec and mean nothing to Lance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The options of one store."""

    store: str
    """What it is called in messages."""
    bucket: str
    """What it calls a bucket."""
    lance: frozenset[str]
    """Lance's names; they are taken as they are."""
    fsspec: Mapping[str, Callable[[Any], dict[str, str]]]
    """fsspec's names, and what each becomes."""
    back: Mapping[str, str]
    """Lance's names to fsspec's, where the values are the same."""
    more: Callable[[Mapping[str, str]], dict[str, Any]]
    """The rest of what fsspec's class gets, from Lance's options."""
    finish: Callable[[dict[str, str]], str]
    """Completes Lance's options from each other and the environment; returns who is asking."""
    skip_signature: str | None = None
    """Lance's name for requests that are not signed."""
    patient: bool = True
    """Whether Lance's client of the store knows the options of `patience`."""

    def read(self, options: Mapping[str, Any]) -> Read:
        """Return what Lance gets.

        Raises:
            UnknownNameError: An option of neither dialect.
            NotSupportedError: An option of fsspec's that Lance cannot express.
            InvalidInputError: One thing is said twice, differently.
        """
        made: dict[str, str] = {}
        said: dict[str, str] = {}
        unused: list[str] = []
        for name, value in options.items():
            if value is None:
                continue
            if name in self.fsspec:
                found = self.fsspec[name](value)
            elif name in self.lance | _COMMON or name.startswith("lance_aimd_"):
                text = whole_seconds(name, value) if name == "client_retry_timeout" else _text(value)
                found = {"timeout" if name == "request_timeout" else name: text}
            elif name in _FSSPEC:
                unused.append(name)
                continue
            elif name.startswith("headers.") or name in {
                "session_kwargs",
                "request_session",
                "requester_pays",
            }:
                raise NotSupportedError(f"storage option {name!r}: Lance has no equivalent")
            else:
                known = [*self.fsspec, *self.lance, *_COMMON]
                raise UnknownNameError(
                    f"storage option {name!r} is not known for {self.store}",
                    hint=did_you_mean(name, known, what="options"),
                )
            for key, text in found.items():
                if made.setdefault(key, text) != text:
                    raise InvalidInputError(
                        f"storage options {said[key]!r} and {name!r} say different things"
                    )
                said.setdefault(key, name)
        identity = self.finish(made)
        if self.patient:
            waits = patience(read_s=seconds("timeout", made["timeout"]) if "timeout" in made else None)
            made.update({name: text for name, text in waits.items() if name not in made})
        _allow_http(made)
        anonymous = self.skip_signature is not None and made.get(self.skip_signature) == "true"
        return Read(lance=made, identity=identity, anonymous=anonymous, unused=tuple(unused))

    def for_fsspec(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of both dialects in fsspec's words.

        Raises:
            NotSupportedError: An option that only Lance's client has.
        """
        made: dict[str, Any] = {}
        for name, value in options.items():
            if name in self.back:
                made[self.back[name]] = value
            elif name in _COMMON or (name in self.lance and name not in self.fsspec):
                raise NotSupportedError(
                    f"storage option {name!r} is of Lance's own client, which is not used here",
                    hint="leave it out",
                )
            else:
                made[name] = value
        return made

    def from_lance(self, options: Mapping[str, str]) -> dict[str, Any]:
        """Return what fsspec's class gets to reach the same store as the same user."""
        made = {self.back[n]: v for n, v in options.items() if n in self.back}
        return made | self.more(options) | {"use_listings_cache": False, "skip_instance_cache": True}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _string(name: str) -> Callable[[Any], dict[str, str]]:
    def read(value: Any) -> dict[str, str]:
        if not isinstance(value, str) or not value:
            raise NotSupportedError(f"{name} is given as {type(value).__name__}: Lance takes text")
        return {name: value}

    return read


def _allow_http(options: dict[str, str]) -> None:
    """Let Lance speak http where an endpoint does, past a proxy that cannot reach this machine."""
    endpoints = [v for n, v in options.items() if n in {"google_base_url", "azure_storage_endpoint"}]
    plain = any(e.startswith("http://") for e in endpoints)
    options.setdefault("allow_http", _text(plain))
    hosts = [urlsplit(e).hostname or "" for e in endpoints]
    if any(map(is_loopback, hosts)) and "proxy_url" not in options:
        options["proxy_url"] = "http://127.0.0.1:9"
        options["proxy_excludes"] = ",".join(hosts)


# -------------------------------------------------------------------------------- Google


def _google_token(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        if value.get("type") != "service_account":
            raise NotSupportedError(
                "a token that is no service account's key: Lance takes only those as a dict"
            )
        return {"google_service_account_key": json.dumps(value)}
    if value in {"google_default", "cloud"}:
        return {}
    if value == "anon":
        return {"google_skip_signature": "true"}
    if not isinstance(value, str) or value in {"browser", "cache"}:
        raise NotSupportedError("this kind of token has no equivalent in Lance")
    try:
        kind = json.loads(Path(value).read_text()).get("type")
    except FileNotFoundError:
        raise InvalidInputError(
            f"storage option 'token' is {value!r}: there is no such file",
            hint="it is the path of a key file, a dict, or 'anon', 'google_default', 'cloud'",
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"storage option 'token' names {value!r}, which is no JSON: {error}"
        ) from None
    return {
        "google_service_account" if kind == "service_account" else "google_application_credentials": value
    }


def _google_endpoint(value: Any) -> dict[str, str]:
    return {"google_base_url": endpoint_url("endpoint_url", value)}


def _google_finish(options: dict[str, str]) -> str:
    options.setdefault("google_skip_signature", "false")
    if options["google_skip_signature"] == "true":
        return "as nobody: requests are not signed"
    keys = ("google_service_account", "google_service_account_key", "google_application_credentials",
            "google_storage_token", "google_bearer_token")  # fmt: skip
    return "as the options say" if any(k in options for k in keys) else "as the environment says"


def _google_more(options: Mapping[str, str]) -> dict[str, Any]:
    if options.get("google_skip_signature") == "true":
        return {"token": "anon"}
    if "google_service_account_key" in options:
        return {"token": json.loads(options["google_service_account_key"])}
    token = options.get("google_storage_token") or options.get("google_bearer_token")
    if token is not None:
        from google.oauth2.credentials import Credentials

        return {"token": Credentials(token)}
    return {}


GOOGLE: Final = Dialect(
    store="Google Cloud Storage",
    bucket="bucket",
    lance=frozenset(
        {
            "google_service_account", "google_service_account_key", "google_application_credentials",
            "google_storage_token", "google_bearer_token", "google_base_url", "google_skip_signature",
        }
    ),
    fsspec={"token": _google_token, "endpoint_url": _google_endpoint},
    back={
        "google_service_account": "token",
        "google_application_credentials": "token",
        "google_base_url": "endpoint_url",
    },
    more=_google_more,
    finish=_google_finish,
    skip_signature="google_skip_signature",
)  # fmt: skip


# --------------------------------------------------------------------------------- Azure


def _connection_string(value: Any) -> dict[str, str]:
    """Read `AccountName=…;AccountKey=…;BlobEndpoint=…`, in the manner of Azure's own tools."""
    parts = dict(part.split("=", 1) for part in str(value).split(";") if "=" in part)
    if "AccountName" not in parts:
        raise InvalidInputError(
            "storage option 'connection_string' names no account",
            hint="it has the form AccountName=…;AccountKey=…",
        )
    found = {"azure_storage_account_name": parts["AccountName"]}
    if "AccountKey" in parts:
        found["azure_storage_account_key"] = parts["AccountKey"]
    if "SharedAccessSignature" in parts:
        found["azure_storage_sas_token"] = parts["SharedAccessSignature"].lstrip("?")
    suffix = parts.get("EndpointSuffix", "core.windows.net")
    if "BlobEndpoint" in parts:
        found["azure_storage_endpoint"] = endpoint_url("BlobEndpoint", parts["BlobEndpoint"])
    elif suffix != "core.windows.net":
        scheme = parts.get("DefaultEndpointsProtocol", "https")
        found["azure_storage_endpoint"] = f"{scheme}://{parts['AccountName']}.blob.{suffix}"
    return found


def _azure_anon(value: Any) -> dict[str, str]:
    return {"azure_skip_signature": "true"} if value is True or str(value).lower() == "true" else {}


def _azure_host(value: Any) -> dict[str, str]:
    return {"azure_storage_endpoint": endpoint_url("account_host", f"https://{value}")}


def _azure_credential(value: Any) -> dict[str, str]:
    raise NotSupportedError(f"a credential of type {type(value).__name__}: Lance has no equivalent")


def _azure_sas(value: Any) -> dict[str, str]:
    return _string("azure_storage_sas_token")(value.lstrip("?") if isinstance(value, str) else value)


def _azure_finish(options: dict[str, str]) -> str:
    options.setdefault("azure_skip_signature", "false")
    options.setdefault("azure_storage_use_emulator", "false")
    if "azure_storage_account_name" not in options:
        name = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        if name is None:
            raise StoragePermissionError(
                "no account of Azure Blob Storage was named",
                hint="pass storage_options={'account_name': …}, or set AZURE_STORAGE_ACCOUNT_NAME",
            )
        options["azure_storage_account_name"] = name
    account = options["azure_storage_account_name"]
    if options["azure_skip_signature"] == "true":
        return f"at {account}, as nobody: requests are not signed"
    keys = (
        "azure_storage_account_key",
        "azure_storage_sas_token",
        "azure_storage_client_secret",
        "azure_storage_token",
    )
    return (
        f"at {account}, as {'the options say' if any(k in options for k in keys) else 'the environment says'}"
    )


def _azure_more(options: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {"anon": options["azure_skip_signature"] == "true"}
    endpoint = options.get("azure_storage_endpoint")
    if endpoint is not None:
        # adlfs takes an endpoint of its own only within a connection string.
        parts = {
            "DefaultEndpointsProtocol": urlsplit(endpoint).scheme,
            "AccountName": options["azure_storage_account_name"],
            "AccountKey": options.get("azure_storage_account_key"),
            "SharedAccessSignature": options.get("azure_storage_sas_token"),
            "BlobEndpoint": endpoint,
        }
        made["connection_string"] = ";".join(f"{n}={v}" for n, v in parts.items() if v is not None)
    return made


AZURE: Final = Dialect(
    store="Azure Blob Storage",
    bucket="container",
    lance=frozenset(
        {
            "azure_storage_account_name", "azure_storage_account_key", "azure_storage_sas_token",
            "azure_storage_endpoint", "azure_storage_client_id", "azure_storage_client_secret",
            "azure_storage_tenant_id", "azure_storage_token", "azure_msi_endpoint", "azure_msi_resource_id",
            "azure_federated_token_file", "azure_use_azure_cli", "azure_storage_use_emulator",
            "azure_skip_signature",
        }
    ),
    fsspec={
        "account_name": _string("azure_storage_account_name"),
        "account_key": _string("azure_storage_account_key"),
        "connection_string": _connection_string,
        "sas_token": _azure_sas,
        "client_id": _string("azure_storage_client_id"),
        "client_secret": _string("azure_storage_client_secret"),
        "tenant_id": _string("azure_storage_tenant_id"),
        "account_host": _azure_host,
        "anon": _azure_anon,
        "credential": _azure_credential,
    },
    back={
        "azure_storage_account_name": "account_name",
        "azure_storage_account_key": "account_key",
        "azure_storage_sas_token": "sas_token",
        "azure_storage_client_id": "client_id",
        "azure_storage_client_secret": "client_secret",
        "azure_storage_tenant_id": "tenant_id",
    },
    more=_azure_more,
    finish=_azure_finish,
    skip_signature="azure_skip_signature",
)  # fmt: skip


# ----------------------------------------------------------------------------------- Hub


def _hub_token(value: Any) -> dict[str, str]:
    return {} if isinstance(value, bool) else _string("hf_token")(value)


def _hub_endpoint(value: Any) -> dict[str, str]:
    raise NotSupportedError(f"the endpoint {value!r}: Lance reads the Hub only where it stands")


HUB: Final = Dialect(
    store="the Hugging Face Hub",
    bucket="datasets/owner/name",
    lance=frozenset({"hf_token", "hf_download_mode", "hf_enable_resolve_cache"}),
    fsspec={"token": _hub_token, "endpoint": _hub_endpoint},
    back={"hf_token": "token"},
    more=lambda options: {},  # noqa: ARG005
    finish=lambda options: "as the options say" if "hf_token" in options else "as the environment says",
    patient=False,
)
