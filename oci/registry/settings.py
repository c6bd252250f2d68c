"""How one registry is spoken to."""

from __future__ import annotations

from dataclasses import dataclass, field

from oci.manifest import MANIFEST_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """Seconds, bytes and counts; the defaults suit a registry on the internet."""

    ca_files: tuple[str, ...] = ()
    """PEM files that are trusted beside the system's authorities."""
    client_certificate: str = ""
    client_key: str = ""
    verify: bool = True
    insecure: bool = False
    """Permits plain http where TLS isn't spoken. Loopback hosts are permitted it anyway."""
    proxy: str = field(default="", repr=False)
    """URL of a proxy, perhaps with a login; empty: what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say."""
    http2: bool = False
    concurrency: int = 8
    """Requests in flight. With more than one, one of them is kept for requests without a blob."""
    requests_per_second: float = 0.0
    """0 for no limit."""
    connect_timeout: float = 10.0
    header_timeout: float = 30.0
    """From the end of a request to the first byte of its answer."""
    idle_timeout: float = 60.0
    """For the next bytes of a body."""
    minimum_rate: int = 1024
    """Bytes per second that a body must average over `idle_timeout`, against a drip that never ends; 0 for none."""
    retries: int = 5
    """Attempts beyond the first, for one call."""
    retry_budget: float = 600.0
    """Seconds of waiting in all for one call. A Retry-After within it is honoured in full."""
    manifest_limit: int = MANIFEST_LIMIT
    chunk_size: int = 0
    """Bytes of a chunk in uploads; 0: one PUT for the whole blob, chunks only when that doesn't work."""
    quota_reserve: int = 0
    """Docker Hub: stop before fewer pulls than this are left in the window; 0 to use them up."""
    allow_private_redirects: bool = False
    """Lets a public registry send us to loopback, private or link-local addresses."""
