"""How a registry is reached."""

from functools import partial
from typing import Annotated, Any

from oci.errors import InvalidInput
from oci.manifest import MANIFEST_LIMIT
from oci.options import Options, option

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

_advanced = partial(option, group="advanced")
_time_out = partial(_advanced, unit="seconds", ge=0.001, le=3_600)


class RegistryOptions(Options, frozen=True, kw_only=True):
    """How the registries of one side are reached. The defaults suit a registry on the internet."""

    anonymous: Annotated[
        bool,
        option(
            "Anonymous",
            "Do not read the docker config of this machine. Blocks and IMGPKG variables are used nevertheless.",
            flag="--registry-anon",
        ),
    ] = False
    insecure: Annotated[
        bool,
        option(
            "Allow plain http",
            "Use http for a registry that has no TLS. It is always allowed for loopback addresses.",
            flag="--registry-insecure",
        ),
    ] = False
    verify_tls: Annotated[
        bool,
        option(
            "Verify TLS certificates",
            "Check the certificate and the host name. Switch it off for a test registry only.",
            flag="--registry-verify-certs",
        ),
    ] = True
    ca_files: Annotated[
        tuple[str, ...],
        option(
            "CA files",
            "PEM files with certificate authorities to trust, beside those of the system.",
            examples=[["/etc/ssl/corp-ca.pem"]],
            max_length=16,
            flag="--registry-ca-cert-path",
            metavar="PATH",
        ),
    ] = ()
    client_certificate: Annotated[
        str,
        _advanced(
            "Client certificate",
            "PEM file, for registries that ask for a certificate.",
            flag="--registry-client-cert",
            metavar="PATH",
        ),
    ] = ""
    client_key: Annotated[
        str,
        _advanced(
            "Client key",
            "PEM file with the key of the client certificate.",
            flag="--registry-client-key",
            metavar="PATH",
        ),
    ] = ""
    proxy: Annotated[
        str,
        _advanced(
            "Proxy",
            "URL of a proxy: http://HOST:PORT. Empty: what HTTPS_PROXY and NO_PROXY say.",
            examples=["http://proxy.corp.example:3128"],
            pattern=r"^(https?://\S+)?$",
            flag="--registry-proxy",
            hidden=True,
            metavar="URL",
        ),
    ] = ""
    retries: Annotated[
        int,
        _advanced(
            "Retries of a request",
            "Repeat a failed request this many times.",
            ge=0,
            le=50,
            flag="--registry-retry-count",
        ),
    ] = 5
    retry_budget: Annotated[
        float,
        _advanced(
            "Retry budget",
            "Wait this long in all for one request, between its attempts. A longer Retry-After ends the request.",
            unit="seconds",
            ge=0,
            le=86_400,
            flag="--registry-retry-budget",
        ),
    ] = 600.0
    connect_timeout: Annotated[
        float,
        _time_out("Connect time-out", "Wait this long for a connection.", flag="--registry-connect-timeout"),
    ] = 10.0
    header_timeout: Annotated[
        float,
        _time_out(
            "Response header time-out",
            "Wait this long for an answer to begin.",
            flag="--registry-response-header-timeout",
        ),
    ] = 30.0
    idle_timeout: Annotated[
        float,
        _time_out("Idle time-out", "Wait this long for the next bytes of a body.", flag="--registry-idle-timeout"),
    ] = 60.0
    minimum_rate: Annotated[
        int,
        _advanced(
            "Minimum rate",
            "Bytes a second that a body must reach on average during the idle time-out; 0 for no minimum.",
            unit="bytes",
            ge=0,
            le=1 << 40,
            flag="--registry-minimum-rate",
        ),
    ] = 1024
    requests_per_second: Annotated[
        float,
        _advanced(
            "Requests per second",
            "Send a registry no more requests than this, whatever runs beside; 0 for no limit.",
            ge=0,
            le=10_000,
            flag="--registry-requests-per-second",
        ),
    ] = 0.0
    bandwidth: Annotated[
        int,
        _advanced(
            "Bandwidth",
            "Move no more bytes of blobs a second than this; 0 for no limit. Of one registry: from and to it. As a "
            "flag: to and from all together, but for registries with a limit of their own.",
            unit="bytes",
            ge=0,
            le=1 << 40,
            flag="--registry-bandwidth",
            examples=["20MiB"],
        ),
    ] = 0
    quota_reserve: Annotated[
        int,
        _advanced(
            "Docker Hub reserve",
            "Stop before fewer pulls than this are left in the quota; 0 uses all of them.",
            ge=0,
            le=100_000,
            flag="--registry-quota-reserve",
        ),
    ] = 0
    http2: Annotated[
        bool,
        _advanced(
            "HTTP/2",
            "Use HTTP/2, which is slower for blobs, for a registry that requires it.",
            flag="--registry-http2",
        ),
    ] = False
    chunk_size: Annotated[
        int,
        _advanced(
            "Chunk size",
            "Upload in chunks of this size. 0: send a blob in one request, and in chunks where that fails.",
            unit="bytes",
            ge=0,
            le=5 << 30,
            flag="--registry-chunk-size",
        ),
    ] = 0
    manifest_limit: Annotated[
        int,
        _advanced(
            "Manifest limit",
            "Refuse a manifest that is larger.",
            unit="bytes",
            ge=1024,
            le=1 << 30,
            flag="--registry-manifest-limit",
        ),
    ] = MANIFEST_LIMIT
    allow_private_redirects: Annotated[
        bool,
        _advanced(
            "Allow redirects to private addresses",
            "For a registry at a public address that has its blobs inside your network.",
            flag="--registry-allow-private-redirects",
        ),
    ] = False
    profile: Annotated[
        str,
        _advanced(
            "Profile",
            "What software a registry is, where its host doesn't belong to a known service: that says how it is asked "
            "at first. auto: as its name and its answers say.",
            words=(AUTO, *PROFILES, UNKNOWN),
            flag="--registry-profile",
            metavar="PROFILE",
        ),
    ] = AUTO
    parallel_reads: Annotated[
        int,
        _advanced(
            "Parallel reads",
            "Read a large blob over this many connections at once, where a registry limits the speed of each.",
            ge=1,
            le=32,
            flag="--registry-parallel-reads",
        ),
    ] = 1
    aws_profile: Annotated[
        str,
        _advanced(
            "AWS profile",
            "Log in to Amazon's registries with this profile of the AWS config files.",
            flag="--registry-aws-profile",
            max_length=200,
            metavar="NAME",
        ),
    ] = ""
    aws_role: Annotated[
        str,
        _advanced(
            "AWS role",
            "Log in to Amazon's registries with this role, by its ARN.",
            examples=["arn:aws:iam::123456789012:role/pusher"],
            pattern=r"^(arn:\S+)?$",
            flag="--registry-aws-role",
            metavar="ARN",
        ),
    ] = ""
    state: Annotated[
        bool,
        _advanced(
            "State",
            "Keep what is learned about registries, and where unfinished uploads are, in the cache folder of this "
            "machine for the next run.",
            flag="--state",
        ),
    ] = True
    concurrency: Annotated[
        int,
        _advanced(
            "Requests in flight",
            "With more than 1, one of them is for requests without a blob.",
            ge=1,
            le=1_000,
            flag="--concurrency",
        ),
    ] = DEFAULT_CONCURRENCY

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
