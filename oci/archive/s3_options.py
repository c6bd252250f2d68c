"""How an object store is reached; plain values, so that nobody has to import boto3 to say them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

WHEN_SUPPORTED = "when_supported"
WHEN_REQUIRED = "when_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Whatever is empty comes from the environment and the AWS config files, as boto3 finds it."""

    endpoint: str = ""
    region: str = ""
    profile: str = ""
    role: str = ""
    """ARN of a role to assume."""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    path_style: bool = False
    """`endpoint/bucket/key` instead of `bucket.endpoint/key`; an endpoint with a plain IP address gets it anyway."""
    ca_file: str = ""
    verify: bool = True
    encryption: str = ""
    """`AES256`, `aws:kms` or `aws:kms:KEY-ID`."""
    storage_class: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    checksums: str = WHEN_SUPPORTED
    """`when_required` for stores that don't know CRC32 checksums: parts carry an MD5 then."""
    connections: int = 16
    timeout: float = 60.0
    """Seconds without any answer."""
    tries: int = 5
    """Of each request, before it counts as failed."""
    abandoned_after: float = 7 * 24 * 3600.0
    """Seconds without a new part, after which an unfinished upload of the same object is nobody's, and is removed."""

    @property
    def address(self) -> str:
        """Of what isn't Amazon S3, as boto3 finds it; empty for Amazon."""
        return self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
