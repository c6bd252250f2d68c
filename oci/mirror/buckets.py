"""The object stores that archives of mirrors go to, by their buckets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from oci.archive.s3_options import S3Options
from oci.mirror.rules import STRICT


class Bucket(BaseModel):
    """How one bucket is reached, and under which name its keys are kept. The keys themselves never stand here.

    What isn't said comes from the S3 Store block, or else from the environment and the AWS config files."""

    model_config = STRICT | ConfigDict(title="Bucket")

    s3_store: str = Field(
        default="",
        title="S3 Store",
        description="Name of an S3 Store block, for runs on a worker. Empty, and on the command line: AWS_* variables, "
        "~/.aws, a role.",
        examples=["corp-archives"],
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        max_length=200,
    )
    endpoint: str = Field(
        default="",
        title="Endpoint",
        description="Of what isn't Amazon S3.",
        examples=["https://s3.corp.example"],
        pattern=r"^(https?://[^@\s]+)?$",
        max_length=2000,
    )
    region: str = Field(
        default="", title="Region", description="Where the bucket is.", examples=["eu-central-1"], max_length=100
    )
    profile: str = Field(
        default="", title="Profile", description="Of the AWS config files on the machine of the run.", max_length=200
    )
    role: str = Field(
        default="",
        title="Role",
        description="ARN of a role to assume; its keys are renewed as long as a run takes.",
        examples=["arn:aws:iam::123456789012:role/archives"],
        max_length=2000,
    )
    path_style: bool | None = Field(
        default=None,
        title="Path style",
        description="https://ENDPOINT/BUCKET/KEY instead of https://BUCKET.ENDPOINT/KEY.",
    )
    ca_file: str = Field(
        default="",
        title="CA file",
        description="PEM file on the machine of the run to trust instead of the system's.",
        examples=["/etc/ssl/corp-ca.pem"],
        max_length=2000,
    )
    verify_tls: bool | None = Field(
        default=None, title="Verify TLS certificates", description="Switch off for a test store only."
    )
    encryption: str = Field(
        default="",
        title="Encryption",
        description="AES256, aws:kms, or aws:kms:KEY-ID. Empty: as the bucket says.",
        pattern=r"^(AES256|aws:kms(:.+)?)?$",
        max_length=2000,
    )
    storage_class: str = Field(
        default="", title="Storage class", description="Empty: the bucket's.", examples=["STANDARD_IA"], max_length=100
    )
    tags: dict[str, str] = Field(
        default={}, title="Tags", description="Of every archive that is written.", max_length=10
    )
    checksums: Literal["when_supported", "when_required"] | None = Field(
        default=None, title="Checksums", description="when_required: for stores that know no checksum but MD5."
    )

    def over(self, known: S3Options) -> S3Options:
        """`known` with what is said here."""
        said: dict[str, Any] = {
            "endpoint": self.endpoint,
            "region": self.region,
            "profile": self.profile,
            "role": self.role,
            "ca_file": self.ca_file,
            "encryption": self.encryption,
            "storage_class": self.storage_class,
            "tags": self.tags,
            "path_style": self.path_style,
            "verify_tls": self.verify_tls,
            "checksums": self.checksums,
        }
        return known.with_(**{name: value for name, value in said.items() if value not in ("", None, {})})
