"""How registries differ: what is known about a registry from its host, and what is learned while talking to it.

A profile says where to begin and how fast a registry may be asked; the registry's own answers correct it for the rest
of the run and, through `state`, for the next. The facts come from the registries' documentation and from public bug
reports, and may change: nothing relies on them.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from oci.errors import RateLimited, StoreError
from oci.meter import Meter
from oci.registry import endpoints
from oci.registry.endpoints import KINDS, Kind
from oci.registry.http.origin import canonical_host
from oci.registry.options import AUTO
from oci.registry.state import Facts, State

CHUNK = 16 << 20
"""Bytes of a chunk, unless a setting, a profile or the registry says otherwise."""

SMALLEST_CHUNK = 256 << 10
"""Bytes below which a chunk isn't halved any more."""

_MARK_LIMIT = 1000
"""Characters of a header that are looked at."""

_NOT_STORED = frozenset({endpoints.GET_REFERRERS, endpoints.GET_TAGS_AFTER})
"""Kinds of request whose plain way finds less: a refusal isn't stored, as the registry may support the kind in the next
run."""

_PATIENCE = 3
"""A probe that failed so often with a status of the 500s, while the plain way worked, isn't tried again."""

ENDS_OLDER = "a new token ends the older ones, one at a time used"

_STORED = {name: kind for name, kind in KINDS.items() if kind.plain_way and kind not in _NOT_STORED}
_log = logging.getLogger("transship.http")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where to begin with a registry, and how it is recognised: `hosts` is a regular expression for the canonical host
    of a service, with its port, `guess` one for names that people like to give to their own; `marks` are headers of
    its answers with regular expressions for how their values begin."""

    name: str
    hosts: str = ""
    guess: str = ""
    marks: Mapping[str, str] = MappingProxyType({})
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
    Profile(
        name="ACR",
        hosts=r"[a-z0-9-]+\.azurecr\.(io|cn|us|de)",
        marks={"server": "AzureContainerRegistry"},
        body_limit=CHUNK,
    ),
    Profile(
        name="Quay",
        hosts=r"quay\.io",
        guess=r"quay\..+",
        marks={"www-authenticate": r"Bearer realm=\"[^\"]+/v2/auth\""},
        works=_refuses(endpoints.POST_BLOB),
    ),
    Profile(
        name="GitLab",
        hosts=r"registry\.gitlab\.com",
        guess=r"registry\.gitlab\..+",
        marks={"gitlab-container-registry-version": "", "www-authenticate": r"Bearer realm=\"[^\"]+/jwt/auth\""},
        works=_refuses(endpoints.POST_BLOB),
    ),
    Profile(name="Chainguard", hosts=r"cgr\.dev"),
    Profile(
        name="Harbor",
        hosts=r"demo\.goharbor\.io",
        guess=r"harbor\..+",
        marks={"x-harbor-csrf-token": "", "www-authenticate": r".*service=\"harbor-registry\""},
    ),
    Profile(
        name="Artifactory",
        hosts=r".+\.jfrog\.io",
        guess=r"artifactory\..+",
        marks={"x-jfrog-version": "", "x-artifactory-id": "", "server": "Artifactory"},
        works=_refuses(endpoints.POST_BLOB),
    ),
    Profile(
        name="Nexus",
        guess=r"nexus\d*\..+",
        marks={"server": "Nexus", "www-authenticate": 'Basic realm="Sonatype Nexus'},
        works=_refuses(endpoints.POST_BLOB),
    ),
    Profile(name="docker-registry 2"),
    Profile(name="distribution 3"),
    Profile(name="zot", hosts=r".+\.zotregistry\.(dev|io)", guess=r"zot\..+"),
)
"""Software that runs on any host (docker-registry, distribution) is spoken to like a registry that isn't known."""

UNKNOWN = Profile(name="")


def profile_of(registry: str, chosen: str = AUTO) -> Profile:
    """The profile of a service that has the host; else the `chosen` one (a word of the option); else what the name of
    the host suggests."""
    host = canonical_host(registry)
    service = next((profile for profile in PROFILES if profile.hosts and re.fullmatch(profile.hosts, host)), None)
    if service is not None:
        return service
    if chosen != AUTO:
        return next((profile for profile in PROFILES if option_word(profile) == chosen), UNKNOWN)
    return next((profile for profile in PROFILES if profile.guess and re.fullmatch(profile.guess, host)), UNKNOWN)


def option_word(profile: Profile) -> str:
    """How the option `profile` names it: `ecr-public`."""
    return profile.name.lower().replace(" ", "-")


def recognised(headers: Mapping[str, str]) -> Profile | None:
    """The profile whose marks an answer has."""
    for profile in PROFILES:
        for name, beginning in profile.marks.items():
            value = headers.get(name)
            if value is not None and re.match(beginning, value[:_MARK_LIMIT], re.IGNORECASE):
                return profile
    return None


class Learned:
    """What works at a registry. Shared by everything that talks to it from one side; safe from any thread."""

    def __init__(
        self,
        registry: str,
        meter: Meter,
        chosen: str = AUTO,
        state: State | None = None,
    ) -> None:
        """`chosen` is a word of the option: the software that answers show doesn't change a profile that the user
        named."""
        self.registry = registry
        self.state = state or State()
        self.tags: dict[tuple[str, str], str] = {}
        """(repository, digest of a manifest): a tag that showed it in this run."""

        self.absent: set[tuple[str, str]] = set()
        """(repository, tag or digest): manifests that a HEAD did not find, and that were not pushed since."""

        self.finders: set[Kind] = set()
        """Kinds of request that found a manifest in this run."""

        self._meter = meter
        self._lock = threading.Lock()
        self._answered: set[Kind] = set()
        self._trying: set[Kind] = set()
        self._failures: dict[Kind, int] = {}
        self._unsure: set[Kind] = set()
        self._is_chosen = chosen != AUTO
        self.profile = profile_of(registry, chosen)
        before = self.state.facts(canonical_host(registry))
        if before.profile and not self._is_chosen and self.profile is UNKNOWN:
            self.profile = next((profile for profile in PROFILES if profile.name == before.profile), UNKNOWN)
        remembered = {KINDS[name]: works for name, works in before.works.items() if name in KINDS}
        self._assumed: dict[Kind, bool] = {**self.profile.works, **remembered}
        self._works: dict[Kind, bool] = dict(self._assumed)
        self._sure_limit = before.body_limit if before.body_limit >= SMALLEST_CHUNK else 0
        self.body_limit = self._sure_limit or self.profile.body_limit
        """Bytes of a request's body that get through; 0 for no limit that is known."""
        self.ends_older = before.ends_older
        """Its token service ends older tokens whenever it gives another."""

        self._before = msgspec.structs.replace(self.facts(), rates=before.rates)
        self.rates = before.current_rates(time.time())
        """What earlier runs have learned of the registry's limits, see Facts."""

    def recognise(self, headers: Mapping[str, str]) -> None:
        """Takes in what an answer says of the software behind a host whose name said nothing."""
        if self.profile is not UNKNOWN or self._is_chosen:
            return
        profile = recognised(headers)
        if profile is None:
            return
        with self._lock:
            self.profile = profile
            for kind, works in profile.works.items():
                if kind not in self._works and kind not in self._trying:
                    self._works[kind] = self._assumed[kind] = works
            self.body_limit = self.body_limit or profile.body_limit
        _log.debug("%s: its answers are those of %s", self.registry, profile.name)

    def facts(self) -> Facts:
        """What is worth keeping for the next run."""
        sure = self._works.keys() - self._unsure
        works = {name: self._works[kind] for name, kind in _STORED.items() if kind in sure}
        return Facts(profile=self.profile.name, works=works, body_limit=self._sure_limit, ends_older=self.ends_older)

    def news(self, rates: Mapping[str, float] | None = None) -> Facts | None:
        """The facts of this run, where they are others than before it. `rates` are those that its limits allowed."""
        facts = msgspec.structs.replace(self.facts(), rates={**self._before.rates, **(rates or {})})
        return facts if facts != self._before else None

    def works(self, kind: Kind) -> bool | None:
        """None as long as it isn't known."""
        return self._works.get(kind)

    def is_assumed(self, kind: Kind) -> bool:
        """What `works` says comes from the profile or an earlier run, and wasn't seen in this one."""
        return kind in self._assumed and kind not in self._answered

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
        self._answered.add(kind)

    def doubt(self, kind: Kind) -> None:
        """Forgets what a profile or an earlier run says of a kind: without it there is no way left."""
        if self.is_assumed(kind):
            self._assumed.pop(kind)
            self._works.pop(kind, None)

    def decline(self, kind: Kind) -> None:
        """The registry answered in the terms of the specification that it doesn't do this: nothing to report."""
        self._works[kind] = False
        self._answered.add(kind)

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
            self._answered.add(kind)
            if not lasting or self._works.get(kind) is False:
                self._trying.discard(kind)
                return
            self._works[kind] = False
            if error is None or (status >= 500 and status != 501):
                self._unsure.add(kind)  # out of order today, or asked too early, is not how a registry is
        self.note(kind.refusal(status))

    def note(self, text: str) -> None:
        """Says in the report and in the log which way was taken instead of another."""
        self._meter.fallback(self.registry, text)
        _log.debug("%s: %s", self.registry, text)

    def learn_ends_older(self, ends_older: bool) -> None:
        self.ends_older = ends_older
        self.note(ENDS_OLDER if ends_older else "tokens end by themselves, one for each repository used")

    def limit_body(self, size: int, why: str, *, sure: bool = True) -> bool:
        """A body of `size` bytes didn't get through: the limit is less. False when it can't be made any smaller. What
        isn't `sure` is for this run alone."""
        with self._lock:
            limit = min(CHUNK, size // 2) if not self.body_limit else min(self.body_limit, size // 2)
            if limit < SMALLEST_CHUNK:
                return False
            if self.body_limit == limit:
                return True
            self.body_limit = limit
            self._sure_limit = limit if sure else self._sure_limit
        self.note(f"a body of {size} bytes {why}, chunks of {limit} bytes used")
        return True


def is_refusal(error: StoreError) -> bool:
    """Whether an answer is about the way of asking, so that the plain way may be answered otherwise: not about access,
    speed, absence, or a registry that is out of order."""
    return error.status == 501 or (400 <= error.status < 500 and error.status not in (401, 403, 404, 408, 425, 429))
