"""How a registry is reached."""

from typing import Any, TypeVar

from oci.errors import InvalidInput
from oci.manifest import MANIFEST_LIMIT
from oci.options import Options, option

T = TypeVar("T")

DEFAULT_CONCURRENCY = 50
"""Requests in flight at one registry, and blobs on their way, at the most: how many are right is found out (`pace`)."""

AUTO = "auto"
PROFILES = (
    "ecr",
    "ecr-public",
    "docker-hub",
    "ghcr",
    "gar",
    "acr",
    "quay",
    "gitlab",
    "chainguard",
    "harbor",
    "artifactory",
    "nexus",
    "docker-registry-2",
    "distribution-3",
    "zot",
)
"""The profiles of `oci.registry.profiles`, as options name them."""

UNKNOWN = "unknown"


def _advanced(default: T, help: str, **declared: Any) -> T:  # noqa: A002
    return option(default, help, group="advanced", **declared)


def _time_out(default: float, help: str, **declared: Any) -> float:  # noqa: A002
    return _advanced(default, help, unit="seconds", ge=0.001, le=3_600, **declared)


class RegistryOptions(Options, flags="--registry-"):
    """How the registries of one side are reached. The defaults suit a registry on the internet."""

    anonymous: bool = option(
        False,
        "Do not read the docker config of this machine. Blocks and IMGPKG variables are used nevertheless.",
        flag="--registry-anon",
    )
    insecure: bool = option(
        False,
        "Use http for a registry that has no TLS. It is always allowed for loopback addresses.",
        title="Allow plain http",
    )
    verify_tls: bool = option(
        True,
        "Check the certificate and the host name. Switch it off for a test registry only.",
        title="Verify TLS certificates",
        flag="--registry-verify-certs",
    )
    ca_files: tuple[str, ...] = option(
        (),
        "PEM files with certificate authorities to trust, beside those of the system.",
        title="CA files",
        examples=[["/etc/ssl/corp-ca.pem"]],
        max_length=16,
        flag="--registry-ca-cert-path",
        metavar="PATH",
    )
    client_certificate: str = _advanced(
        "", "PEM file, for registries that ask for a certificate.", flag="--registry-client-cert", metavar="PATH"
    )
    client_key: str = _advanced("", "PEM file with the key of the client certificate.", metavar="PATH")
    proxy: str = _advanced(
        "",
        "URL of a proxy: http://HOST:PORT. Empty: what HTTPS_PROXY and NO_PROXY say.",
        examples=["http://proxy.corp.example:3128"],
        pattern=r"^(https?://\S+)?$",
        hidden=True,
        metavar="URL",
    )
    retries: int = _advanced(
        5,
        "Repeat a failed request this many times.",
        title="Retries of a request",
        ge=0,
        le=50,
        flag="--registry-retry-count",
    )
    retry_budget: float = _advanced(
        600.0,
        "Wait this long in all for one request, between its attempts. A longer Retry-After ends the request.",
        unit="seconds",
        ge=0,
        le=86_400,
    )
    connect_timeout: float = _time_out(10.0, "Wait this long for a connection.", title="Connect time-out")
    header_timeout: float = _time_out(
        30.0,
        "Wait this long for an answer to begin.",
        title="Response header time-out",
        flag="--registry-response-header-timeout",
    )
    idle_timeout: float = _time_out(60.0, "Wait this long for the next bytes of a body.", title="Idle time-out")
    minimum_rate: int = _advanced(
        1024,
        "Bytes a second that a body must reach on average during the idle time-out; 0 for no minimum.",
        unit="bytes",
        ge=0,
        le=1 << 40,
    )
    requests_per_second: float = _advanced(
        0.0, "Send a registry no more requests than this, whatever runs beside; 0 for no limit.", ge=0, le=10_000
    )
    bandwidth: int = _advanced(
        0,
        "Move no more bytes of blobs a second than this; 0 for no limit. Of one registry: from and to it. As a flag: "
        "to and from all together, but for registries with a limit of their own.",
        unit="bytes",
        ge=0,
        le=1 << 40,
        examples=["20MiB"],
    )
    quota_reserve: int = _advanced(
        0,
        "Stop before fewer pulls than this are left in the quota; 0 uses all of them.",
        title="Docker Hub reserve",
        ge=0,
        le=100_000,
    )
    http2: bool = _advanced(
        False, "Use HTTP/2, which is slower for blobs, for a registry that requires it.", title="HTTP/2"
    )
    chunk_size: int = _advanced(
        0,
        "Upload in chunks of this size. 0: send a blob in one request, and in chunks where that fails.",
        unit="bytes",
        ge=0,
        le=5 << 30,
    )
    manifest_limit: int = _advanced(
        MANIFEST_LIMIT, "Refuse a manifest that is larger.", unit="bytes", ge=1024, le=1 << 30
    )
    allow_private_redirects: bool = _advanced(
        False,
        "For a registry at a public address that has its blobs inside your network.",
        title="Allow redirects to private addresses",
    )
    profile: str = _advanced(
        AUTO,
        "What software a registry is, where its host doesn't belong to a known service: that says how it is asked at "
        "first. auto: as its name and its answers say.",
        words=(AUTO, *PROFILES, UNKNOWN),
        metavar="PROFILE",
    )
    parallel_reads: int = _advanced(
        1,
        "Read a large blob over this many connections at once, where a registry limits the speed of each.",
        ge=1,
        le=32,
    )
    aws_profile: str = _advanced(
        "",
        "Log in to Amazon's registries with this profile of the AWS config files.",
        title="AWS profile",
        max_length=200,
        metavar="NAME",
    )
    aws_role: str = _advanced(
        "",
        "Log in to Amazon's registries with this role, by its ARN.",
        title="AWS role",
        examples=["arn:aws:iam::123456789012:role/pusher"],
        pattern=r"^(arn:\S+)?$",
        metavar="ARN",
    )
    state: bool = _advanced(
        True,
        "Keep what is learned about registries, and where unfinished uploads are, in the cache folder of this machine "
        "for the next run.",
        flag="--state",
    )
    concurrency: int = _advanced(
        DEFAULT_CONCURRENCY,
        "With more than 1, one of them is for requests without a blob.",
        title="Requests in flight",
        ge=1,
        le=1_000,
        flag="--concurrency",
    )

    @classmethod
    def form(cls) -> dict[str, Any]:
        """Leaves out what a run has for all its registries, and refuses a proxy with a login."""
        form = super().form()
        form["properties"].pop("concurrency")
        form["properties"]["proxy"]["pattern"] = r"^(https?://[^@\s]+)?$"
        return form

    def check_stored(self) -> None:
        if "@" in self.proxy:
            raise InvalidInput(
                "proxy: a proxy with a login would be stored in clear", hint="set HTTPS_PROXY on the worker instead"
            )
