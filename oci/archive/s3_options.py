"""How an object store is reached: plain values, which need no boto3."""

import os
from typing import Annotated

import msgspec

from oci.options import Options, option

WHEN_SUPPORTED = "when_supported"
WHEN_REQUIRED = "when_required"


class S3Options(Options, frozen=True, kw_only=True):
    """How the object store of s3://BUCKET/KEY is reached. What is empty comes from the environment and the AWS config
    files, as boto3 reads them."""

    endpoint: Annotated[
        str,
        option(
            "Endpoint",
            "URL of an object store other than Amazon S3.",
            examples=["https://s3.corp.example"],
            pattern=r"^(https?://[^@\s]+)?$",
            max_length=2000,
            flag="--s3-endpoint",
            metavar="URL",
        ),
    ] = ""
    region: Annotated[
        str,
        option("Region", "Region of the bucket.", examples=["eu-central-1"], max_length=100, flag="--s3-region"),
    ] = ""
    profile: Annotated[
        str, option("Profile", "Profile of the AWS config files.", max_length=200, flag="--s3-profile")
    ] = ""
    role: Annotated[
        str,
        option(
            "Role",
            "ARN of a role to assume. Its keys are renewed during the run.",
            examples=["arn:aws:iam::123456789012:role/archives"],
            max_length=2000,
            flag="--s3-role",
            metavar="ARN",
        ),
    ] = ""
    path_style: Annotated[
        bool,
        option(
            "Path style",
            "Use https://ENDPOINT/BUCKET/KEY instead of https://BUCKET.ENDPOINT/KEY. An endpoint with a plain IP "
            "address gets it anyway.",
            flag="--s3-path-style",
        ),
    ] = False
    ca_file: Annotated[
        str,
        option(
            "CA file",
            "PEM file to trust instead of the system's authorities.",
            examples=["/etc/ssl/corp-ca.pem"],
            max_length=2000,
            flag="--s3-ca-cert-path",
            metavar="PATH",
        ),
    ] = ""
    verify_tls: Annotated[
        bool,
        option(
            "Verify TLS certificates",
            "Check the certificate and the host name of the store. Switch it off for a test store only.",
            flag="--s3-verify-certs",
        ),
    ] = True
    encryption: Annotated[
        str,
        option(
            "Encryption",
            "AES256, aws:kms, or aws:kms:KEY-ID. Empty: as the bucket says.",
            examples=["AES256"],
            pattern=r"^(AES256|aws:kms(:.+)?)?$",
            max_length=2000,
            flag="--s3-encryption",
        ),
    ] = ""
    storage_class: Annotated[
        str,
        option(
            "Storage class",
            "Storage class of the object. Empty: the bucket's.",
            examples=["STANDARD_IA"],
            max_length=100,
            flag="--s3-storage-class",
        ),
    ] = ""
    tags: Annotated[
        dict[str, str], option("Tags", "Tags of every object that is written.", max_length=10, flag="--s3-tags")
    ] = msgspec.field(default_factory=dict)
    checksums: Annotated[
        str,
        option(
            "Checksums",
            "when_required: for a store that knows no CRC32 checksums; parts carry an MD5 then.",
            words=(WHEN_SUPPORTED, WHEN_REQUIRED),
            flag="--s3-checksums",
        ),
    ] = WHEN_SUPPORTED
    access_key: Annotated[str, option("Access key", "Id of a key.", secret=True)] = ""
    secret_key: Annotated[str, option("Secret key", "Secret of the key.", secret=True)] = ""
    session_token: Annotated[str, option("Session token", "Token of a temporary key.", secret=True)] = ""
    origin: Annotated[str, option("Origin", "Where the keys are from, in words, for reports.", secret=True)] = ""
    connections: Annotated[
        int,
        option("Connections", "Connections to the store.", ge=1, le=256, flag="--s3-connections", group="advanced"),
    ] = 16
    timeout: Annotated[
        float,
        option(
            "Time-out",
            "Wait this long for any answer.",
            unit="seconds",
            ge=0.001,
            le=3600,
            flag="--s3-timeout",
            group="advanced",
        ),
    ] = 60.0
    tries: Annotated[
        int,
        option(
            "Tries",
            "Send a request this many times before it counts as failed.",
            ge=1,
            le=50,
            flag="--s3-tries",
            group="advanced",
        ),
    ] = 5
    abandoned_after: Annotated[
        float,
        option(
            "Abandoned after",
            "Remove an unfinished upload of the same object that got no new part for this long.",
            unit="seconds",
            ge=60,
            le=365 * 86_400,
            flag="--s3-abandoned-after",
            group="advanced",
        ),
    ] = 7 * 24 * 3600.0

    def __hash__(self) -> int:
        return hash((self.endpoint, self.region, self.profile, self.role, self.access_key))

    @property
    def address(self) -> str:
        """URL of a store other than Amazon S3, as boto3 reads it; empty for Amazon."""
        return self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
