"""S3 options: fsspec's names and Lance's, read into one value, written out for either.

Users speak s3fs (`key`, `endpoint_url`, `client_kwargs` …) or Lance (`aws_access_key_id`,
`aws_endpoint` …); both are read by one table. Nothing is ignored in silence: an option is
used, or is named in `unused` because it only tunes s3fs, or is refused.

What Lance gets is explicit wherever its environment variables would otherwise decide
(measured with pylance 14.0.2): `AWS_ENDPOINT_URL_S3` wins over an endpoint that is given,
`AWS_SKIP_SIGNATURE`, `AWS_ALLOW_HTTP`, `AWS_VIRTUAL_HOSTED_STYLE_REQUEST`,
`AWS_UNSIGNED_PAYLOAD`, `AWS_S3_EXPRESS`, `AWS_REQUEST_PAYER`, `AWS_CONDITIONAL_PUT` and
`AWS_SESSION_TOKEN` apply unless the option is set, and a proxy swallows loopback requests.
Only `AWS_ALLOW_HTTP` and its two Azure cousins cannot be outdone: they overwrite the option,
so that one which forbids the endpoint is named instead of Lance's "builder error".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import urlsplit

from vecdataset.errors import InvalidInputError, NotSupportedError, UnknownNameError, did_you_mean
from vecdataset.storage.patience import patience, seconds, whole_seconds

__all__ = [
    "S3Options",
    "aws_host",
    "endpoint_url",
    "is_loopback",
    "s3fs_options",
    "split_foreign",
    "with_foreign",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How to reach one S3 endpoint, in either dialect; None means not said."""

    key: str | None = field(default=None, repr=False)
    """Access key id."""
    secret: str | None = field(default=None, repr=False)
    """Secret access key."""
    token: str | None = field(default=None, repr=False)
    """Session token."""
    profile: str | None = None
    """Section of the AWS configuration files."""
    anon: bool | None = None
    """Requests are not signed."""
    endpoint: str | None = None
    """URL with scheme, without the bucket; None is AWS itself."""
    region: str | None = None
    virtual: bool | None = None
    """The bucket stands in the host name, not in the path."""
    use_ssl: bool | None = None
    allow_http: bool | None = None
    insecure: bool | None = None
    """Certificates are not checked."""
    requester_pays: bool | None = None
    sse: str | None = None
    """Server-side encryption."""
    kms_key: str | None = None
    bucket_key: bool | None = None
    connect_timeout: float | None = None
    """Seconds."""
    read_timeout: float | None = None
    """Seconds."""
    proxy: str | None = field(default=None, repr=False)
    user_agent: str | None = None
    retries: int | None = None
    lance: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Options that only Lance has, under Lance's names."""
    unused: tuple[str, ...] = ()
    """Options given that tune s3fs and mean nothing to Lance."""

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> S3Options:
        """Read what a user gave.

        Raises:
            UnknownNameError: An option of neither dialect.
            NotSupportedError: An option of s3fs that Lance cannot express.
            InvalidInputError: A value of the wrong kind, or one thing said twice, differently.
        """
        found: dict[str, Any] = {}
        said_by: dict[str, str] = {}
        lance: dict[str, str] = {}
        unused: list[str] = []
        for name, value in _flatten(options):
            if name in _FIELDS:
                target, convert = _FIELDS[name]
                converted = convert(name, value)
                if converted is None:
                    continue
                if found.setdefault(target, converted) != converted:
                    raise InvalidInputError(
                        f"storage options {said_by[target]!r} and {name!r} say different things"
                    )
                said_by.setdefault(target, name)
            elif name in _LANCE_ONLY or name.startswith("lance_aimd_"):
                text = _text(value) if isinstance(value, bool) else str(value)
                lance[name] = whole_seconds(name, value) if name == "client_retry_timeout" else text
            elif name in _TUNING:
                unused.append(name)
            else:
                _refuse(name, value)
        return cls(**found, lance=lance, unused=tuple(unused)).checked()

    def checked(self) -> S3Options:
        """Return self if its parts fit together."""
        if (self.key is None) != (self.secret is None):
            given, missing = ("key", "secret") if self.key else ("secret", "key")
            raise InvalidInputError(f"storage option {given!r} is given without {missing!r}")
        if self.token is not None and self.key is None:
            raise InvalidInputError("storage option 'token' is given without 'key' and 'secret'")
        if self.anon and (self.key is not None or self.profile is not None):
            raise InvalidInputError("storage option 'anon' contradicts the credentials given beside it")
        if self.key is not None and self.profile is not None:
            raise InvalidInputError("storage options 'key' and 'profile' contradict each other")
        if self.endpoint is not None:
            https = urlsplit(self.endpoint).scheme == "https"
            if self.use_ssl is not None and self.use_ssl != https:
                raise InvalidInputError("storage option 'use_ssl' contradicts the scheme of the endpoint")
            if not https and self.allow_http is False:
                raise InvalidInputError("storage option 'allow_http' contradicts the scheme of the endpoint")
        return self

    def for_lance(self, bucket: str) -> dict[str, str]:
        """Return Lance's `storage_options`, every hazard of the environment closed.

        Keys that Lance is to find by itself are absent: those of a role that it can refresh.
        """
        endpoint = self.endpoint
        if endpoint is None and self.use_ssl is False:
            endpoint = f"http://{aws_host(self.region)}"
        made: dict[str, str | None] = {
            "aws_region": self.region or (endpoint and "us-east-1"),
            "aws_skip_signature": _text(self.anon or False),
            "aws_virtual_hosted_style_request": _text(self.virtual or False),
            "aws_unsigned_payload": "false",
            "aws_s3_express": "false",
            "aws_conditional_put": "etag",
            "aws_request_payer": _text(self.requester_pays or False),
            "allow_http": _text(endpoint is not None and endpoint.startswith("http://")),
            "allow_invalid_certificates": _text(self.insecure or False),
            "aws_access_key_id": self.key,
            "aws_secret_access_key": self.secret,
            "aws_session_token": self.token,
            "aws_server_side_encryption": self.sse,
            "aws_sse_kms_key_id": self.kms_key,
            "aws_sse_bucket_key_enabled": None if self.bucket_key is None else _text(self.bucket_key),
            **patience(connect_s=self.connect_timeout, read_s=self.read_timeout, retries=self.retries),
            "proxy_url": self.proxy,
            "user_agent": self.user_agent,
        }
        if self.key is not None and self.token is None and any(v in os.environ for v in _TOKEN_VARIABLES):
            # Otherwise Lance sends the environment's token beside these keys. It sends an empty
            # token header instead, which moto and MinIO take for none.
            made["aws_session_token"] = ""
        if endpoint is not None:
            if endpoint.startswith("http://"):
                _require_http_allowed()
            if self.virtual:
                endpoint = _with_bucket(endpoint, bucket)
            made["aws_endpoint"] = made["aws_endpoint_url_s3"] = endpoint
            host = urlsplit(endpoint).hostname or ""
            if self.proxy is None and is_loopback(host):
                # `proxy_excludes` counts only beside a `proxy_url`; port 9 discards.
                made["proxy_url"], made["proxy_excludes"] = "http://127.0.0.1:9", host
        return {**{name: value for name, value in made.items() if value is not None}, **self.lance}


def s3fs_options(options: Mapping[str, str], bucket: str) -> dict[str, Any]:
    """Return what s3fs needs to reach the same store as Lance does with `options`."""
    endpoint = options.get("aws_endpoint")
    virtual = options.get("aws_virtual_hosted_style_request") == "true"
    if endpoint is not None and virtual:
        endpoint = endpoint.replace(f"://{bucket}.", "://", 1)
    config: dict[str, Any] = {
        "connect_timeout": seconds("connect_timeout", options["connect_timeout"]),
        "retries": {"total_max_attempts": 1 + int(options["client_max_retries"]), "mode": "standard"},
        "s3": {"addressing_style": "virtual" if virtual else "path" if endpoint else "auto"},
    }
    config["read_timeout"] = seconds("timeout", options["timeout"])
    if "proxy_url" in options:
        proxy = options["proxy_url"]
        config["proxies"] = {} if "proxy_excludes" in options else {"http": proxy, "https": proxy}
    if "user_agent" in options:
        config["user_agent"] = options["user_agent"]
    client: dict[str, Any] = {}
    if "aws_region" in options:
        client["region_name"] = options["aws_region"]
    if options["allow_invalid_certificates"] == "true":
        client["verify"] = False
    names = {
        "ServerSideEncryption": "aws_server_side_encryption",
        "SSEKMSKeyId": "aws_sse_kms_key_id",
    }
    more: dict[str, Any] = {name: options[own] for name, own in names.items() if own in options}
    if "aws_sse_bucket_key_enabled" in options:
        more["BucketKeyEnabled"] = options["aws_sse_bucket_key_enabled"] == "true"
    return {
        "key": options.get("aws_access_key_id"),
        "secret": options.get("aws_secret_access_key"),
        "token": options.get("aws_session_token") or None,
        "anon": options["aws_skip_signature"] == "true",
        "endpoint_url": endpoint,
        "requester_pays": options["aws_request_payer"] == "true",
        "client_kwargs": client,
        "config_kwargs": config,
        "s3_additional_kwargs": more,
        "use_listings_cache": False,
    }


def split_foreign(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that Lance can express, and those that only s3fs can, by dotted names.

    Raises:
        NotSupportedError: An option that neither of both can be given beside the others.
    """
    known: dict[str, Any] = {}
    foreign: dict[str, Any] = {}
    for name, value in _flatten(options):
        try:
            if name in _FIELDS:
                _FIELDS[name][1](name, value)
            elif name not in _LANCE_ONLY | _TUNING and not name.startswith("lance_aimd_"):
                _refuse(name, value)
            known[name] = value
        except NotSupportedError:
            if name not in _S3FS_ONLY and name.partition(".")[0] not in _NESTED:
                raise
            foreign[name] = value
    lance = [n for n in known if n in _LANCE_ONLY or n.startswith("lance_aimd_")]
    if lance:
        raise NotSupportedError(
            f"storage option {lance[0]!r} is of Lance's own client, which is not used here",
            hint="leave it out",
        )
    return known, foreign


def with_foreign(made: dict[str, Any], foreign: Mapping[str, Any]) -> dict[str, Any]:
    """Add options by dotted names to nested ones of s3fs."""
    for name, value in foreign.items():
        *outer, last = name.split(".")
        place = made
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return made


def aws_host(region: str | None) -> str:
    """Return the host of AWS S3 in a region."""
    region = region or "us-east-1"
    return f"s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, so that no proxy can stand between."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _require_http_allowed() -> None:
    for name in ("AWS_ALLOW_HTTP", "AZURE_STORAGE_ALLOW_HTTP", "AZURE_STORAGE_USE_HTTP"):
        value = os.environ.get(name)
        if value is not None and value.lower() not in {"1", "true", "on", "yes", "y"}:
            raise InvalidInputError(
                f"the endpoint is http, and the environment variable {name}={value} forbids that to Lance",
                hint=f"unset {name}, or use an https endpoint",
            )


# ---------------------------------------------------------------------------- reading


def _flatten(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names and values, nested ones of s3fs under `outer.inner`; None says nothing."""
    for name, value in options.items():
        if value is None:
            continue
        if name in _NESTED:
            if not isinstance(value, Mapping):
                raise InvalidInputError(f"storage option {name!r} is a dict, not {type(value).__name__}")
            yield from _flatten({f"{name}.{inner}": v for inner, v in value.items()})
        else:
            yield name, value


def _refuse(name: str, value: object) -> None:
    if _UNSUPPORTED.get(name) == "false" and value is False:
        return  # what s3fs does unless told otherwise
    if name in _UNSUPPORTED or name.partition(".")[0] in _NESTED or name.startswith("headers."):
        raise NotSupportedError(f"storage option {name!r} is not supported: Lance has no equivalent")
    known = [n for n in (*_FIELDS, *_LANCE_ONLY, *_NESTED) if "." not in n]
    raise UnknownNameError(
        f"storage option {name!r} is not known for s3",
        hint=did_you_mean(name, known, what="S3 options"),
    )


def _string(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"storage option {name!r} is a non-empty str, not {type(value).__name__}")
    return value


def _bool(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"true", "1", "yes", "on"}:
        return True
    if text in {"false", "0", "no", "off"}:
        return False
    raise InvalidInputError(f"storage option {name!r} is a bool, not {value!r}")


def _not_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise NotSupportedError(
            f"storage option {name!r} is not supported with a file of certificates",
            hint="set the environment variable SSL_CERT_FILE",
        )
    return not value


def _int(name: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise InvalidInputError(f"storage option {name!r} is an integer, not {value!r}") from None


def _attempts(name: str, value: object) -> int:
    return max(0, _int(name, value) - 1)


def endpoint_url(name: str, value: object) -> str:
    """Return an endpoint without trailing slash, if it is a URL that carries no credentials."""
    text = _string(name, value).rstrip("/")
    parts = urlsplit(text)
    if "@" in text or parts.query or parts.fragment:
        raise InvalidInputError(
            f"storage option {name!r} is more than a scheme, a host and a path",
            hint="credentials belong in storage_options as 'key' and 'secret'",
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInputError(f"storage option {name!r} is a URL with http:// or https://, not {text!r}")
    return text


def _style(name: str, value: object) -> bool | None:
    if value not in {"auto", "path", "virtual"}:
        raise InvalidInputError(f"storage option {name!r} is 'auto', 'path' or 'virtual', not {value!r}")
    return None if value == "auto" else value == "virtual"


def _signature(name: str, value: object) -> bool | None:
    if type(value).__name__ == "UNSIGNED" or "UNSIGNED" in repr(value):
        return True
    if value in {"s3v4", "v4"}:
        return None
    raise NotSupportedError(f"storage option {name!r} is not supported with {value!r}: Lance signs with s3v4")


def _proxies(name: str, value: object) -> str | None:
    urls = {v for v in value.values() if v} if isinstance(value, Mapping) else {value}
    if len(urls) > 1:
        raise NotSupportedError(f"storage option {name!r} is not supported with two different proxies")
    return _string(name, urls.pop()) if urls else None


def _text(value: bool) -> str:  # noqa: FBT001 - the word for a truth value
    return "true" if value else "false"


def _with_bucket(endpoint: str, bucket: str) -> str:
    scheme, _, rest = endpoint.partition("://")
    return endpoint if rest.startswith(f"{bucket}.") else f"{scheme}://{bucket}.{rest}"


_TOKEN_VARIABLES: Final = ("AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_SECURITY_TOKEN")

_NESTED: Final = frozenset(
    {"client_kwargs", "config_kwargs", "config_kwargs.s3", "config_kwargs.retries", "s3_additional_kwargs"}
)

_Convert = Callable[[str, Any], Any]
_TABLE: Final[tuple[tuple[str, _Convert, str], ...]] = (
    # field, how its value is read, the names that say it
    ("key", _string, "key username aws_access_key_id access_key_id client_kwargs.aws_access_key_id"),
    ("secret", _string, "secret password aws_secret_access_key secret_access_key"),
    ("secret", _string, "client_kwargs.aws_secret_access_key"),
    ("token", _string, "token aws_session_token session_token aws_token client_kwargs.aws_session_token"),
    ("profile", _string, "profile aws_profile"),
    ("anon", _bool, "anon aws_skip_signature skip_signature"),
    ("anon", _signature, "config_kwargs.signature_version"),
    ("endpoint", endpoint_url, "endpoint_url endpoint aws_endpoint aws_endpoint_url aws_endpoint_url_s3"),
    ("endpoint", endpoint_url, "client_kwargs.endpoint_url"),
    ("region", _string, "region region_name aws_region aws_default_region"),
    ("region", _string, "client_kwargs.region_name config_kwargs.region_name"),
    ("virtual", _bool, "aws_virtual_hosted_style_request virtual_hosted_style_request"),
    ("virtual", _style, "config_kwargs.s3.addressing_style"),
    ("use_ssl", _bool, "use_ssl client_kwargs.use_ssl"),
    ("allow_http", _bool, "allow_http aws_allow_http"),
    ("insecure", _bool, "allow_invalid_certificates aws_allow_invalid_certificates"),
    ("insecure", _not_bool, "verify client_kwargs.verify"),
    ("requester_pays", _bool, "requester_pays aws_request_payer request_payer"),
    ("sse", _string, "aws_server_side_encryption s3_additional_kwargs.ServerSideEncryption"),
    ("kms_key", _string, "aws_sse_kms_key_id s3_additional_kwargs.SSEKMSKeyId"),
    ("bucket_key", _bool, "aws_sse_bucket_key_enabled s3_additional_kwargs.BucketKeyEnabled"),
    ("connect_timeout", seconds, "connect_timeout config_kwargs.connect_timeout"),
    ("read_timeout", seconds, "request_timeout timeout read_timeout config_kwargs.read_timeout"),
    ("proxy", _string, "proxy_url"),
    ("proxy", _proxies, "config_kwargs.proxies"),
    ("user_agent", _string, "user_agent config_kwargs.user_agent"),
    ("retries", _int, "client_max_retries"),
    ("retries", _attempts, "config_kwargs.retries.total_max_attempts"),
    ("retries", _int, "config_kwargs.retries.max_attempts"),
)  # fmt: skip
_FIELDS: Final = {name: (target, convert) for target, convert, names in _TABLE for name in names.split()}

_LANCE_ONLY: Final = frozenset(
    {
        "client_retry_timeout", "download_retry_count", "pool_idle_timeout", "pool_max_idle_per_host",
        "aws_checksum_algorithm", "aws_disable_tagging", "aws_copy_if_not_exists",
    }
)  # fmt: skip

_TUNING: Final = frozenset(
    {
        "default_block_size", "default_fill_cache", "default_cache_type", "cache_regions", "max_concurrency",
        "use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "loop",
        "local_expiry_check", "config_kwargs.max_pool_connections", "config_kwargs.tcp_keepalive",
        "config_kwargs.retries.mode",
    }
)  # fmt: skip

_S3FS_ONLY: Final = frozenset({"session", "version_aware", "fixed_upload_size"})

_UNSUPPORTED: Final[Mapping[str, str]] = {
    "asynchronous": "false", "version_aware": "false", "fixed_upload_size": "false",
    "session": "", "use_opendal": "", "aws_provider_scheme": "", "aws_conditional_put": "",
    "aws_imdsv1_fallback": "", "aws_sse_customer_key_base64": "", "proxy_excludes": "",
    "proxy_ca_certificate": "",
}  # fmt: skip

assert {target for target, _, _ in _TABLE} <= {f.name for f in fields(S3Options)}
