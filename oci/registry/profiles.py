"""How registries differ: what is known about a registry from its host, and what is learned while talking to it.

A profile says where to begin and how fast a registry may be asked; the registry's own answers correct it for the rest
of the run. The facts come from the registries' documentation and from public bug reports, and may change: nothing
relies on them.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from oci.errors import RateLimited, Refused, StoreError
from oci.meter import Meter
from oci.reference import Repository
from oci.registry import endpoints
from oci.registry.credentials.hosts import canonical_host
from oci.registry.endpoints import Kind
from oci.registry.http.pace import Attempts
from oci.registry.http.transport import Transport

CHUNK = 16 << 20
"""Bytes of a chunk, unless a setting, a profile or the registry says otherwise."""

SMALLEST_CHUNK = 256 << 10
"""Bytes below which a chunk isn't halved any more."""

_PATIENCE = 3
"""A probe that failed so often with a status of the 500s, while the plain way worked, isn't tried again."""

_log = logging.getLogger("transship.http")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where to begin with a registry. `hosts` is a regular expression for the canonical host, with its port."""

    name: str
    hosts: str = ""
    works: Mapping[Kind, bool] = MappingProxyType({})
    """Kinds of requests with a plain way, that are known to work or to be refused. Others are tried."""

    body_limit: int = 0
    """Bytes of a request's body that get through; 0 for no limit that is known."""

    caps: Mapping[str, float] = MappingProxyType({})
    """Requests a second that the registry takes, by method and resource ("PUT manifest"), or "*" for all together."""


def _refuses(*kinds: Kind) -> Mapping[Kind, bool]:
    return MappingProxyType(dict.fromkeys(kinds, False))


_ECR_CAPS = {
    "PUT manifest": 10.0,  # PutImage
    "POST upload": 100.0,  # InitiateLayerUpload, mounts among them
    "PUT upload": 100.0,  # CompleteLayerUpload
    "PATCH upload": 500.0,  # UploadLayerPart
    "GET manifest": 2000.0,  # BatchGetImage
    "HEAD manifest": 2000.0,
    "GET blob": 3000.0,  # GetDownloadUrlForLayer
    "HEAD blob": 1000.0,  # BatchCheckLayerAvailability
}
"""Amazon ECR service quotas, per account and region."""

PROFILES = (
    Profile(
        name="ECR",
        hosts=r"\d{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9-]+\.[a-z0-9.-]+",
        works=_refuses(endpoints.POST_BLOB),
        caps=_ECR_CAPS,
    ),
    Profile(
        name="ECR Public",
        hosts=r"public\.ecr\.aws",
        works=_refuses(endpoints.POST_BLOB),
        caps={kind: cap / 10 for kind, cap in _ECR_CAPS.items()},
    ),
    Profile(name="Docker Hub", hosts=r"index\.docker\.io", works=_refuses(endpoints.POST_BLOB)),
    # 2,000 requests a minute for one identity over everything. A second PATCH replaces the first. No referrers API.
    Profile(
        name="GHCR",
        hosts=r"ghcr\.io|containers\.[a-z0-9-]+\.ghe\.com",
        works=_refuses(endpoints.POST_BLOB, endpoints.PATCH_UPLOAD, endpoints.GET_REFERRERS),
        caps={"*": 2000 / 60},
    ),
    # 60,000 requests a minute and project, 18,000 of them writes, over all actions.
    Profile(
        name="GAR",
        hosts=r"([a-z0-9-]+-docker\.pkg\.dev|([a-z0-9-]+\.)?gcr\.io)",
        works=_refuses(endpoints.PATCH_UPLOAD),
        caps={"*": 1000.0, "PUT manifest": 300.0, "POST upload": 300.0, "PUT upload": 300.0},
    ),
    # A body over about 20 MB is reset, or refused with 413.
    Profile(name="ACR", hosts=r"[a-z0-9-]+\.azurecr\.(io|cn|us|de)", body_limit=CHUNK),
    Profile(name="Quay", hosts=r"quay\.io", works=_refuses(endpoints.POST_BLOB)),
    Profile(name="GitLab", hosts=r"registry\.gitlab\.com", works=_refuses(endpoints.POST_BLOB)),
    Profile(name="Chainguard", hosts=r"cgr\.dev"),
    Profile(name="Harbor", hosts=r"(harbor|demo\.goharbor)\..+"),
    Profile(name="Artifactory", hosts=r".+\.jfrog\.io|artifactory\..+", works=_refuses(endpoints.POST_BLOB)),
    Profile(name="Nexus", hosts=r"nexus\d*\..+", works=_refuses(endpoints.POST_BLOB)),
    Profile(name="docker-registry 2"),
    Profile(name="distribution 3"),
    Profile(name="zot", hosts=r"zot\..+|.+\.zotregistry\.(dev|io)"),
)
"""Software that runs on any host (docker-registry, distribution) is spoken to like a registry that isn't known."""

UNKNOWN = Profile(name="")


def profile_of(registry: str) -> Profile:
    host = canonical_host(registry)
    return next((known for known in PROFILES if known.hosts and re.fullmatch(known.hosts, host)), UNKNOWN)


class Learned:
    """What works at a registry. Shared by everything that talks to it from one side; safe from any thread."""

    def __init__(self, registry: str, meter: Meter, profile: Profile | None = None) -> None:
        self.registry = registry
        self.profile = profile_of(registry) if profile is None else profile
        self.tags: dict[tuple[str, str], str] = {}
        """(repository, digest of a manifest): a tag that showed it in this run."""

        self.absent: set[tuple[str, str]] = set()
        """(repository, tag or digest): manifests that a HEAD didn't find in this run."""

        self._meter = meter
        self._lock = threading.Lock()
        self._works: dict[Kind, bool] = dict(self.profile.works)
        self._seen: set[Kind] = set()
        self._trying: set[Kind] = set()
        self._failures: dict[Kind, int] = {}
        self._body_limit = self.profile.body_limit

    def works(self, kind: Kind) -> bool | None:
        """None as long as it isn't known."""
        return self._works.get(kind)

    def is_assumed(self, kind: Kind) -> bool:
        """What `works` says comes from the profile, and wasn't seen in this run."""
        return kind in self.profile.works and kind not in self._seen

    def may_try(self, kind: Kind) -> bool:
        """True where it works, and for a single caller where that isn't known yet: the others take the plain way until
        the answer is there."""
        with self._lock:
            if kind not in self._works and kind not in self._trying:
                self._trying.add(kind)
                return True
            return self._works.get(kind, False)

    def confirm(self, kind: Kind) -> None:
        if self._works.get(kind) is None or self.is_assumed(kind):
            self._works[kind] = True
        self._seen.add(kind)

    def decline(self, kind: Kind) -> None:
        """The registry answered in the terms of the specification that it doesn't do this: nothing to report."""
        self._works[kind] = False
        self._seen.add(kind)

    def refuse(self, kind: Kind, error: StoreError | None = None) -> None:
        """The plain way worked where `kind` was refused. A rate limit or a broken connection says nothing about the
        kind; a status of the 500s only when it comes again and again."""
        status = error.status if error is not None else 0
        if isinstance(error, RateLimited) or (error is not None and status in (0, 408, 425, 429)):
            self._trying.discard(kind)
            return
        with self._lock:
            self._failures[kind] = self._failures.get(kind, 0) + 1
            lasting = status < 500 or status == 501 or self._failures[kind] >= _PATIENCE
            self._seen.add(kind)
            if not lasting or self._works.get(kind) is False:
                self._trying.discard(kind)
                return
            self._works[kind] = False
        self.note(f"{kind.title} refused{f' ({status})' if status else ''}, {kind.plain_way}")

    def note(self, text: str) -> None:
        """Says in the report and in the log which way was taken instead of another."""
        self._meter.fallback(self.registry, text)
        _log.debug("%s: %s", self.registry, text)

    @property
    def body_limit(self) -> int:
        """Bytes of a request's body that get through; 0 for no limit that is known."""
        return self._body_limit

    def limit_body(self, size: int, why: str) -> bool:
        """A body of `size` bytes didn't get through: the limit is less. False when it can't be made any smaller."""
        with self._lock:
            limit = min(CHUNK, size // 2) if not self._body_limit else min(self._body_limit, size // 2)
            if limit < SMALLEST_CHUNK:
                return False
            if self._body_limit == limit:
                return True
            self._body_limit = limit
        self.note(f"a body of {size} bytes {why}, chunks of {limit} bytes used")
        return True


def is_refusal(error: StoreError) -> bool:
    """Whether an answer is about the way of asking, so that the plain way may be answered otherwise: not about access,
    speed, absence, or a registry that is out of order."""
    return error.status == 501 or (400 <= error.status < 500 and error.status not in (401, 403, 404, 408, 425, 429))


class Remote(msgspec.Struct, frozen=True, eq=False):
    """A repository at a registry: how it is reached, and what was learned about the registry."""

    transport: Transport
    name: Repository
    learned: Learned

    def attempts(self) -> Attempts:
        """For a call that does by itself what the transport does for a single request."""
        transport = self.transport
        return Attempts(
            retries=transport.settings.retries,
            budget=transport.settings.retry_budget,
            meter=transport.meter,
            cancel=transport.cancel,
        )

    def check_answered(self, error: StoreError) -> None:
        """Raises `error` when the registry didn't answer at all and nothing is to be tried again."""
        if not error.status and not self.transport.settings.retries:
            raise error

    def refused(self, kind: Kind, message: str, subject: str = "") -> Refused:
        """The error for an answer that can't be worked with."""
        return Refused(
            message,
            side=self.transport.side,
            store=self.transport.registry,
            subject=subject or str(self.name),
            operation=kind.operation,
        )
