"""How an object store is reached, and how an archive is written: plain values, which need no boto3."""

import os

from oci.archive.entry import FORMATS, IMGPKG
from oci.errors import InvalidInput
from oci.options import Options, option

WHEN_SUPPORTED = "when_supported"
WHEN_REQUIRED = "when_required"

DEFAULT_SIZE = 16 << 20
SMALLEST = 5 << 20
"""Bytes that S3 asks of every part but the last (Amazon S3 User Guide, "Multipart upload limits")."""


class S3Options(Options, flags="--s3-"):
    """How the object store of s3://BUCKET/KEY is reached. What is empty comes from the environment and the AWS config
    files, as boto3 reads them."""

    endpoint: str = option(
        "",
        "URL of an object store other than Amazon S3.",
        examples=["https://s3.corp.example"],
        pattern=r"^(https?://[^@\s]+)?$",
        max_length=2000,
        metavar="URL",
    )
    region: str = option("", "Region of the bucket.", examples=["eu-central-1"], max_length=100)
    profile: str = option("", "Profile of the AWS config files.", max_length=200)
    role: str = option(
        "",
        "ARN of a role to assume. Its keys are renewed during the run.",
        examples=["arn:aws:iam::123456789012:role/archives"],
        max_length=2000,
        metavar="ARN",
    )
    path_style: bool = option(
        False,
        "Use https://ENDPOINT/BUCKET/KEY instead of https://BUCKET.ENDPOINT/KEY. An endpoint with a plain IP address "
        "gets it anyway.",
    )
    ca_file: str = option(
        "",
        "PEM file to trust instead of the system's authorities.",
        title="CA file",
        examples=["/etc/ssl/corp-ca.pem"],
        max_length=2000,
        flag="--s3-ca-cert-path",
        metavar="PATH",
    )
    verify_tls: bool = option(
        True,
        "Check the certificate and the host name of the store. Switch it off for a test store only.",
        title="Verify TLS certificates",
        flag="--s3-verify-certs",
    )
    encryption: str = option(
        "",
        "AES256, aws:kms, or aws:kms:KEY-ID. Empty: as the bucket says.",
        examples=["AES256"],
        pattern=r"^(AES256|aws:kms(:.+)?)?$",
        max_length=2000,
    )
    storage_class: str = option(
        "", "Storage class of the object. Empty: the bucket's.", examples=["STANDARD_IA"], max_length=100
    )
    tags: dict[str, str] = option({}, "Tags of every object that is written.", max_length=10)
    checksums: str = option(
        WHEN_SUPPORTED,
        "when_required: for a store that knows no CRC32 checksums; parts carry an MD5 then.",
        words=(WHEN_SUPPORTED, WHEN_REQUIRED),
    )
    access_key: str = option("", "Id of a key.", secret=True)
    secret_key: str = option("", "Secret of the key.", secret=True)
    session_token: str = option("", "Token of a temporary key.", secret=True)
    origin: str = option("", "Where the keys are from, in words, for reports.", secret=True)
    connections: int = option(16, "Connections to the store.", ge=1, le=256, group="advanced")
    timeout: float = option(
        60.0, "Wait this long for any answer.", title="Time-out", unit="seconds", ge=0.001, le=3600, group="advanced"
    )
    tries: int = option(5, "Send a request this many times before it counts as failed.", ge=1, le=50, group="advanced")
    abandoned_after: float = option(
        7 * 24 * 3600.0,
        "Remove an unfinished upload of the same object that got no new part for this long.",
        unit="seconds",
        ge=60,
        le=365 * 86_400,
        group="advanced",
    )

    def __hash__(self) -> int:
        return hash((self.endpoint, self.region, self.profile, self.role, self.access_key))

    @property
    def address(self) -> str:
        """URL of a store other than Amazon S3, as boto3 reads it; empty for Amazon."""
        return self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


class ExportOptions(Options):
    """How an archive is written."""

    format: str = option(
        IMGPKG,
        "imgpkg: as that program reads it. oci-layout: as skopeo, crane and oras read it.",
        words=FORMATS,
        flag="--tar-format",
    )
    base: str = option(
        "",
        "Copy what has not changed out of this archive, which is in one piece, instead of fetching it. It may be the "
        "archive that is to be replaced.",
        title="Older archive",
        examples=["s3://archives/shop-1.3.9.tar"],
        max_length=2000,
        metavar="ARCHIVE",
    )
    delta_from: str = option(
        "",
        "Leave out what the other side has: an archive, a repository, or a file that lists digests of blobs or "
        "images. The archive says what it requires.",
        max_length=2000,
        metavar="ARCHIVE|REPOSITORY|FILE",
    )
    max_size: int = option(
        0,
        "Split the archive into volumes of at most this size; 0 for one archive, whatever its size.",
        title="Volume size",
        unit="bytes",
        ge=0,
        le=5 << 40,
        examples=["4GiB"],
    )
    record: bool = option(
        False,
        "Write into the archive what it was made of, and how, as a statement without a date: the same source gives "
        "the same archive. --receipt does so, too.",
        group="signatures",
    )
    part_size: int = option(
        DEFAULT_SIZE,
        "Bytes that are written at a time; more where S3's 10,000 parts would not be enough. 40 MiB of parts are in "
        "memory at a time; a part that is bigger is read twice instead.",
        unit="bytes",
        ge=SMALLEST,
        le=5 << 30,
        group="advanced",
    )
    max_blob_size: int = option(
        1 << 40,
        "Bytes that one blob of the source may have. An image that states more is refused.",
        title="Largest blob",
        unit="bytes",
        ge=1,
        le=5 << 40,
        group="advanced",
    )

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidInput(f"unknown archive format {self.format!r}", hint=f"known are {', '.join(FORMATS)}")
        if self.max_size < 0 or self.part_size < SMALLEST:
            raise InvalidInput(f"a part has {SMALLEST} bytes or more, and a volume more than none")
