"""What an object store answers, as an error of ours; by its code, for the classes belong to boto3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oci.errors import Denied, NotFound, RateLimited, Refused, StoreError, Unauthorized, Unavailable

_UNAUTHORIZED = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "401", "TokenRefreshRequired"}
)
_CREDENTIALS = "check the access key, or name a profile; boto3 looks into AWS_* variables and ~/.aws"
_HINTS: dict[str, tuple[type[StoreError], str]] = {
    "NoSuchBucket": (NotFound, "make the bucket first, or check its name and the endpoint"),
    "NoSuchKey": (NotFound, "check the key"),
    "NoSuchUpload": (NotFound, "the upload was completed or given up: run it again"),
    "404": (NotFound, "check the bucket, the key and the endpoint"),
    "AccessDenied": (Denied, "check what this identity may do in the bucket"),
    "403": (Denied, "check the credentials, and that this identity has s3:ListBucket: S3 says the same without it"),
    "SlowDown": (RateLimited, "lower the concurrency"),
    "TooManyRequests": (RateLimited, "lower the concurrency"),
    "PreconditionFailed": (Refused, "another run has written this object meanwhile: look at what is there"),
    "ConditionalRequestConflict": (Refused, "another run is writing this object: look at what is there"),
    "412": (Refused, "the object was replaced while it was in use"),
    "MissingContentLength": (Refused, "the store refuses checksum trailers: use --s3-checksums when_required"),
    "411": (Refused, "the store refuses checksum trailers: use --s3-checksums when_required"),
    "NotImplemented": (Refused, "the store doesn't know a header: try --s3-checksums when_required"),
    "501": (Refused, "the store doesn't know a header: try --s3-checksums when_required"),
    "EntityTooSmall": (Refused, "choose bigger parts"),
    "PermanentRedirect": (Refused, "the bucket is in another region: give --s3-region"),
    "AuthorizationHeaderMalformed": (Refused, "the bucket is in another region: give --s3-region"),
}
_PASSES = frozenset({"InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503", "504", "BadDigest"})
_UNREACHABLE = ("Timeout", "Connection", "Endpoint", "HTTPClient", "Proxy", "IncompleteRead", "ResponseStreaming")


def code_of(error: Any) -> str:
    """`NoSuchKey`, or a status where there was no text to answer a HEAD."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def as_store_error(error: Exception, *, side: str, store: str, operation: str) -> StoreError:
    code = code_of(error)
    answer = _answer(error)
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    kind, hint = _kind(code, status, type(error).__name__)
    message = str(answer.get("Error", {}).get("Message", "")) or _plain(error)
    return kind(message, side=side, store=store, operation=operation, status=status, code=code, hint=hint)


def _answer(error: Any) -> Mapping[str, Any]:
    """Nothing where the connection failed."""
    return getattr(error, "response", None) or {}


def _kind(code: str, status: int, name: str) -> tuple[type[StoreError], str]:
    if code in _UNAUTHORIZED or "Credentials" in name or name == "ProfileNotFound":
        return Unauthorized, _CREDENTIALS
    if code in _HINTS:
        return _HINTS[code]
    if code in _PASSES or status >= 500:
        return Unavailable, "run it again; what is stored stays"
    if name == "SSLError":
        return Refused, "name the authority that vouches for it (--s3-ca-cert-path), or check http or https"
    if not code and any(part in name for part in _UNREACHABLE):
        return Unavailable, "check the endpoint, and that this machine reaches it"
    return Refused, "look up the code in the store's documentation" if code else ""


def _plain(error: Exception) -> str:
    """boto3 puts whole URLs into its sentences; query strings stay out of ours."""
    if type(error).__name__ == "ReadTimeoutError":
        return "it stopped answering"
    return " ".join(word.partition("?")[0] for word in str(error).split())
