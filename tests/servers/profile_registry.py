"""Registries with the behaviour of well-known ones, driven by data: the strict registry, and what each does otherwise.

The facts are those of the registries' documentation and of public bug reports; every value of PROFILES is a behaviour
that a client meets there.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.strict_registry import Features, Refusal, StrictHandler, StrictRegistry

USER, PASSWORD = "robot$team+ci", "secret"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`refuses` has a status for each kind of request that is refused: `single POST`, `PATCH`, `mount`, `self mount`,
    `HEAD manifest`, `HEAD blob`, `referrers`, `n`, `last`, `delete tag`, `delete manifest`, `list`."""

    name: str
    features: Features = field(default_factory=Features)
    login: str = "bearer"
    """`basic`, `bearer`, or empty for none."""
    hides: int = 0
    """Status for anonymous requests instead of a challenge; `/v2/` has the challenge."""
    token_uses: int = 0
    """Requests after which a token is refused; 0 for no end."""
    ends_older: str = ""
    """Older tokens that end whenever another is given: those of the `identity`, of a `repository` or of a `scope`."""
    denied: frozenset[str] = frozenset()
    """Repositories that nothing may be pushed to."""
    tokens_are_narrow: bool = False
    """A token of another repository is refused with 403."""
    no_mixed_scopes: bool = False
    """The token service refuses scopes of two repositories with 403."""
    new_needs_push: bool = False
    """A repository that doesn't exist yet can't be read with a token for `pull`."""
    cookies: bool = False
    """Sets a session cookie, and refuses requests that change something and carry it (CSRF guard)."""
    refuses: Mapping[str, int] = field(default_factory=dict)
    missing: int = 404
    """Status for a manifest or a list that isn't there."""
    patch_replaces: bool = False
    """Each PATCH replaces what was there."""
    body_limit: int = 0
    resets: bool = False
    """A body beyond the limit is cut off; otherwise refused with 413."""
    mount_needs_manifest: bool = False
    caps: Mapping[str, float] = field(default_factory=dict)
    """Requests a second by method and resource; more are answered 429."""
    tag_is_digest: bool = False
    """A tag `sha256-<hex>` is read as the digest."""
    says_immutable: tuple[int, str, str] | None = None
    """Status, code and message for a PUT of a tag that exists."""
    digest_after_tag: bool = False
    """A cache: a manifest can be asked for by digest only after its tag was read."""
    tagged_digest_stays: bool = False
    """A manifest with tags isn't deleted by digest."""


_ECR_CAPS = {"PUT manifest": 20.0, "POST upload": 50.0, "PUT upload": 50.0}

PROFILES = (
    Profile(
        name="ECR",
        login="basic",
        refuses={"single POST": 405, "self mount": 400, "referrers": 404, "catalog": 405},
        mount_needs_manifest=True,
        caps=_ECR_CAPS,
        says_immutable=(
            400,
            "ImageTagAlreadyExistsException",
            "The image tag already exists and cannot be overwritten",
        ),
        features=Features(referrers=False),
    ),
    Profile(
        name="ECR Public",
        missing=403,
        refuses={"single POST": 405, "self mount": 405, "referrers": 405, "list": 403},
        mount_needs_manifest=True,
        caps=_ECR_CAPS,
        features=Features(referrers=False),
    ),
    Profile(
        name="Docker Hub",
        new_needs_push=True,
        token_uses=40,
        refuses={"single POST": 400, "delete tag": 401, "delete manifest": 401},
        features=Features(referrers=False, tag_delete=False, no_deletes=True),
    ),
    Profile(
        name="GHCR",
        missing=403,
        patch_replaces=True,
        refuses={"single POST": 415, "mount": 403, "referrers": 404, "delete tag": 405, "delete manifest": 405},
        features=Features(referrers=False, no_deletes=True),
    ),
    Profile(
        name="GAR",
        login="basic",
        refuses={"PATCH": 404, "self mount": 404, "delete tag": 400},
        tagged_digest_stays=True,
        says_immutable=(409, "TAG_EXISTS", "tag cannot be moved"),
    ),
    Profile(name="ACR", body_limit=1_000_000, resets=True, token_uses=60),
    Profile(
        name="Quay",
        new_needs_push=True,
        refuses={"single POST": 400, "HEAD manifest": 405},
        says_immutable=(409, "TAG_ALREADY_EXISTS", "tag is protected"),
    ),
    Profile(
        name="Harbor",
        cookies=True,
        refuses={"referrers": 401, "mount": 401, "self mount": 500},
        says_immutable=(412, "PRECONDITION", "configured as immutable"),
        features=Features(referrers=False),
    ),
    Profile(
        name="GitLab",
        no_mixed_scopes=True,
        tag_is_digest=True,
        refuses={"single POST": 404, "n": 400, "referrers": 404},
        features=Features(referrers=False),
    ),
    Profile(
        name="Artifactory",
        login="basic",
        hides=404,
        missing=403,
        refuses={"single POST": 501, "mount": 404, "HEAD blob": 405, "last": 400},
        says_immutable=(403, "DENIED", "Not enough permissions to overwrite artifact (needs DELETE permission)"),
        features=Features(digest_header=False),
    ),
    Profile(
        name="Nexus",
        login="basic",
        hides=401,
        refuses={"single POST": 400, "mount": 500, "self mount": 500, "HEAD manifest": 404, "referrers": 400},
        says_immutable=(400, "INVALID", "Repository does not allow updating assets: docker-hosted"),
        features=Features(digest_header=False, referrers=False, ranges=False),
    ),
    Profile(name="Chainguard", tokens_are_narrow=True, refuses={"list": 403, "delete tag": 405}),
    Profile(
        name="docker-registry 2",
        login="",
        refuses={"referrers": 404, "delete tag": 400},
        features=Features(referrers=False, tag_paging=False, resume=False, single_post=False),
    ),
    Profile(name="distribution 3", features=Features(referrers=False)),
    Profile(name="zot", login="basic", hides=401, features=Features(page=2)),
    Profile(
        name="a pull-through cache",
        digest_after_tag=True,
        login="",
        refuses={"HEAD blob": 403, "referrers": 403, "delete tag": 405, "delete manifest": 405},
        features=Features(ranges=False, referrers=False, no_deletes=True),
    ),
    Profile(name="tokens for one request", token_uses=1),
    Profile(name="one token an identity", ends_older="identity"),
    Profile(name="one token a repository", ends_older="repository"),
    Profile(name="one token a scope", ends_older="scope"),
    Profile(name="one token, and scopes apart", ends_older="identity", no_mixed_scopes=True),
    Profile(
        name="a proxy with narrow limits",
        login="",
        body_limit=600_000,
        refuses={"HEAD manifest": 503, "HEAD blob": 400, "single POST": 413, "mount": 400, "self mount": 501, "n": 422},
    ),
)


class _Handler(StrictHandler):
    @property
    def registry(self) -> ProfileRegistry:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]

    def _check_login(self) -> None:
        registry, path = self.registry, urlsplit(self.path).path
        profile, sent = registry.profile, self.headers.get("Authorization", "")
        if profile.cookies and "sid=" in self.headers.get("Cookie", "") and self.command not in ("GET", "HEAD"):
            raise Refusal(403, "DENIED", "CSRF token invalid")
        if not profile.login or path == "/token":
            return
        needed = self._needed(path)
        if profile.login == "basic":
            if sent != BASIC:
                raise self._challenge(path, 'Basic realm="registry"')
            return
        token = registry.tokens.get(sent.removeprefix("Bearer "))
        if token is None or (profile.token_uses and token.uses >= profile.token_uses):
            raise self._challenge(path, registry.bearer(needed))
        token.uses += 1
        for name, actions in needed.items():
            if profile.tokens_are_narrow and name not in token.scopes:
                raise Refusal(403, "DENIED", "token of another repository")
            new = profile.new_needs_push and name not in registry.store.repositories
            if not (actions | ({"push"} if new else set())) <= token.scopes.get(name, set()):
                raise Refusal(401, "UNAUTHORIZED", "insufficient scope", WWW_Authenticate=registry.bearer(needed))

    def _challenge(self, path: str, challenge: str) -> Refusal:
        hidden = self.registry.profile.hides
        if hidden and path != "/v2/" and not self.headers.get("Authorization"):
            return Refusal(hidden, "MANIFEST_UNKNOWN" if hidden == 404 else "DENIED")
        return Refusal(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)

    def _needed(self, path: str) -> dict[str, set[str]]:
        """Actions by repository that this request needs."""
        found = re.fullmatch(r"/v2/(.+?)/(?:manifests|blobs|tags|referrers)/.*", path)
        if found is None:
            return {}
        needed = {found.group(1): {"pull"} if self.command in ("GET", "HEAD") else {"pull", "push"}}
        if "mount" in self.query and self.query.get("from", found.group(1)) != found.group(1):
            needed[self.query["from"]] = {"pull"}
        return needed

    def _route(self, path: str) -> None:
        if path == "/token":
            self._token()
            return
        found = re.fullmatch(r"/v2/(.+?)/(manifests|blobs/uploads|blobs|tags|referrers)/(.*)", path)
        if found is None:
            super()._route(path)
            return
        self._behave(*found.groups())
        super()._route(path if not self.moved else self.moved)
        if found.group(2) == "manifests" and self.command == "PUT":
            self.registry.cached |= set(self.registry.store.repositories[found.group(1)].tags.values())

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        if self.registry.profile.cookies:
            headers["Set_Cookie"] = f"sid={secrets.token_hex(4)}; Path=/; HttpOnly"
        super().answer(status, body, **headers)

    def _behave(self, name: str, endpoint: str, identifier: str) -> None:
        """Refuses, delays or changes what this registry doesn't do as the specification says."""
        registry, profile, self.moved = self.registry, self.registry.profile, ""
        resource = {"manifests": "manifest", "blobs/uploads": "upload", "blobs": "blob"}.get(endpoint, endpoint)
        self._within_caps(f"{self.command} {resource}")
        length = int(self.headers.get("Content-Length") or 0)
        if resource == "upload" and profile.body_limit and length > profile.body_limit:
            if profile.resets:
                self.rfile.read(profile.body_limit)
                self.close_connection = True
                raise ConnectionError("cut off")
            raise Refusal(413, "SIZE_INVALID", "request entity too large")
        refused = next((kind for kind in self._kinds(name, resource, identifier) if kind in profile.refuses), "")
        if refused:
            raise Refusal(profile.refuses[refused], "UNSUPPORTED", f"{refused} is not supported")
        repository = registry.store.repositories.get(name)
        if resource == "manifest" and self.command in ("GET", "HEAD"):
            if profile.tag_is_digest and re.fullmatch(r"sha256-[0-9a-f]{64}", identifier):
                identifier = identifier.replace("-", ":", 1)
                self.moved = f"/v2/{name}/manifests/{identifier}"
            known = repository is not None and (identifier in repository.tags or identifier in repository.manifests)
            if not known and profile.missing != 404:
                raise Refusal(profile.missing, "DENIED", "requested access to the resource is denied")
            if repository is not None and profile.digest_after_tag:
                if identifier in repository.tags and self.command == "GET":
                    registry.cached.add(repository.tags[identifier])
                elif identifier in repository.tags.values() and identifier not in registry.cached:
                    raise Refusal(404, "MANIFEST_UNKNOWN", "not in the cache")
        if resource == "tags" and repository is None and profile.missing != 404:
            raise Refusal(profile.missing, "DENIED", "requested access to the resource is denied")
        tags = repository.tags if repository is not None else {}
        if resource == "manifest" and self.command == "PUT" and profile.says_immutable and identifier in tags:
            raise Refusal(*profile.says_immutable)
        deletes = resource == "manifest" and self.command == "DELETE"
        if deletes and profile.tagged_digest_stays and identifier in tags.values():
            raise Refusal(400, "GOOGLE_MANIFEST_DANGLING_TAG", "manifest is still referenced by a tag")
        if resource == "upload" and self.command == "PATCH" and profile.patch_replaces:
            registry.store.uploads[identifier].data.clear()
            del self.headers["Content-Range"]
        if "mount" in self.query and profile.mount_needs_manifest and self.query.get("from") != name:
            home = registry.store.repositories.get(self.query.get("from", ""))
            listed = home is not None and any(self.query["mount"].encode() in raw for _, raw in home.manifests.values())
            if not listed:
                del self.query["mount"]

    def _kinds(self, name: str, resource: str, identifier: str) -> list[str]:
        kinds = {"referrers": ["referrers"], "tags": ["list"]}.get(resource, [])
        if resource == "tags":
            kinds += [key for key in ("n", "last") if key in self.query]
        if resource == "upload":
            if "mount" in self.query:
                kinds.append("self mount" if self.query.get("from") == name else "mount")
            elif self.command == "POST" and "digest" in self.query:
                kinds.append("single POST")
        if self.command == "DELETE" and resource == "manifest":
            kinds.append("delete manifest" if ":" in identifier else "delete tag")
        return [*kinds, self.command if self.command == "PATCH" else f"{self.command} {resource}"]

    def _within_caps(self, family: str) -> None:
        cap = self.registry.profile.caps.get(family)
        if cap is None:
            return
        with self.registry.bucket_lock:
            tokens, when = self.registry.buckets.get(family, (cap / 4, time.monotonic()))
            now = time.monotonic()
            tokens = min(cap / 4, tokens + (now - when) * cap)
            self.registry.buckets[family] = (max(0.0, tokens - 1), now)
        if tokens < 1:
            self.registry.limited += 1
            raise Refusal(429, "TOOMANYREQUESTS", "Rate exceeded")

    def _token(self) -> None:
        profile = self.registry.profile
        if self.headers.get("Authorization") != BASIC:
            raise Refusal(401, "UNAUTHORIZED", "bad credentials")
        scopes: dict[str, set[str]] = {}
        for scope in parse_qs(urlsplit(self.path).query).get("scope", []):
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if kind == "repository":
                scopes[name] = set(actions.split(","))
        if profile.no_mixed_scopes and len(scopes) > 1:
            raise Refusal(403, "DENIED", "access to two projects")
        scopes = {name: actions & {"pull"} if name in profile.denied else actions for name, actions in scopes.items()}
        value = secrets.token_hex(8)
        with self.registry.token_lock:
            if profile.ends_older:
                self.registry.tokens = {
                    other: token for other, token in self.registry.tokens.items() if not self._ends(token, scopes)
                }
            self.registry.tokens[value] = _Token(scopes)
            self.registry.given += 1
        self.answer(200, json.dumps({"token": value, "expires_in": 300}).encode(), Content_Type="application/json")

    def _ends(self, token: _Token, scopes: Mapping[str, set[str]]) -> bool:
        if self.registry.profile.ends_older == "scope":
            return any(token.scopes.get(name) == actions for name, actions in scopes.items())
        return self.registry.profile.ends_older == "identity" or not token.scopes.keys().isdisjoint(scopes)


@dataclass(slots=True)
class _Token:
    scopes: dict[str, set[str]]
    uses: int = 0


class ProfileRegistry(StrictRegistry):
    handler = _Handler

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile.features)
        self.profile = profile
        self.tokens: dict[str, _Token] = {}
        self.token_lock = threading.Lock()
        self.given = 0
        """Tokens."""
        self.cached: set[str] = set()
        self.buckets: dict[str, tuple[float, float]] = {}
        self.bucket_lock = threading.Lock()
        self.limited = 0

    def bearer(self, needed: Mapping[str, set[str]]) -> str:
        scopes: Any = " ".join(f"repository:{name}:{','.join(sorted(actions))}" for name, actions in needed.items())
        scope = f',scope="{scopes}"' if scopes else ""
        return f'Bearer realm="{self.url}/token",service="registry"{scope}'
