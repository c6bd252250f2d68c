"""What a policy of signatures says: which images may go where, and what has to prove it."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from oci.errors import InvalidReference
from oci.reference import HUB, ArchiveName, LayoutFolder, Reference, StoreName, parse_any
from oci.signatures.keyless import KeylessSigner, TrustedRoot, expression
from oci.signatures.keys import PublicKey
from oci.signatures.notation import NotationSigner

Need = Literal["any", "all"]
Signer: TypeAlias = PublicKey | KeylessSigner | NotationSigner
"""A person or program whose signature a policy asks for. Of signers with the same fingerprint one is enough."""
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Identity(Struct, frozen=True, kw_only=True):
    """Which reference a signature must have been made for. `kind` is `patterns` (of ours), or one of the kinds of
    `signedIdentity` (containers-policy.json.5)."""

    kind: str
    patterns: tuple[str, ...] = ()
    reference: str = ""
    prefix: str = ""
    signed_prefix: str = ""

    def fits(self, signed: str, image: Reference | None) -> str:
        """Why a signature for `signed` is none for the image; empty when it fits. `image` is None for what comes from
        an archive or a layout: it has no name that could be believed."""
        if self.kind == "patterns":
            fits = any(_matches(signed, pattern) for pattern in self.patterns)
            return "" if fits else f"it was made for {signed!r}"
        expected = self.reference or (str(image) if image is not None else "")
        if not expected:
            return "the image comes from no registry: say in `signed_as` which repository it was signed for"
        prefix = _spelled(self.prefix)  # a host, or a repository, or a namespace of one
        if self.kind == "remapIdentity" and (
            expected == prefix or expected.startswith((f"{prefix}/", f"{prefix}:", f"{prefix}@"))
        ):
            expected = f"{self.signed_prefix}{expected.removeprefix(prefix)}"
        try:
            claimed, other = parse_any(signed), parse_any(expected)
        except InvalidReference:
            return f"it was made for {signed[:200]!r}, which is no reference"
        same = claimed.repository == other.repository
        exact = self.kind in ("matchExact", "exactReference") or (
            self.kind in ("matchRepoDigestOrExact", "remapIdentity") and other.digest is None
        )
        if exact:
            # It must say its tag or digest itself: a repository alone stands for no tag.
            is_tagged = bool(re.search(r"(:[^/]+|@.+)$", signed))
            same = same and (claimed.tag, claimed.digest) == (other.tag, other.digest) and is_tagged
        return "" if same else f"it was made for {signed}"


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A statement that the predicate of an attestation must make. `field` is a path of keys with dots between them, and
    numbers for the items of lists. Exactly one of the others is given: a value, several, or a regular expression (RE2)
    for the whole text."""

    field: Text
    equals: Any = None
    is_in: tuple[Any, ...] = msgspec.field(default=(), name="in")
    matches: str = ""

    def __post_init__(self) -> None:
        choices = (self.equals is not None, bool(self.is_in), bool(self.matches))
        if sum(choices) != 1:
            raise ValueError(f"{self.field}: give one of equals, in and matches")
        if self.matches:
            expression(self.matches)

    def holds(self, predicate: Any) -> bool:
        value = predicate
        for part in self.field.split("."):
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return False
        if self.matches:
            return isinstance(value, str) and expression(self.matches).fullmatch(value) is not None
        values = self.is_in or (self.equals,)
        return any(type(value) is type(candidate) and value == candidate for candidate in values)

    def __str__(self) -> str:
        if self.matches:
            return f"{self.field} matches {self.matches}"
        return f"{self.field} in {list(self.is_in)}" if self.is_in else f"{self.field} = {self.equals!r}"


class Requirement(Struct, frozen=True, kw_only=True):
    """One thing that has to be proven, by any or all of the signers. With `attestation`, a predicate type, by an
    attestation of that type whose predicate fulfils the conditions of `where`. `unknown` says why it can't be proven
    with this program."""

    signers: tuple[Signer, ...] = ()
    need: Need = "any"
    identity: Identity = Identity(kind="matchRepository")
    attestation: str = ""
    where: tuple[Condition, ...] = ()
    named: bool = False
    """Whether only a signature that names a reference counts, which a bundle doesn't."""
    unknown: str = ""


class Verdict(Struct, frozen=True, kw_only=True):
    """What a policy says of a destination and a source, before anything is looked at. `scope` names the rule. With a
    `minimum_age`, the image must have been known so long ago, by a verified time."""

    scope: str
    accept: bool = False
    reject: bool = False
    requirements: tuple[Requirement, ...] = ()
    minimum_age: timedelta = timedelta()


class SignaturePolicy(Struct, frozen=True, kw_only=True, eq=False):
    """A policy that was read, with its keys. `path` is the file."""

    path: str
    default: Verdict
    rules: tuple[tuple[str, Verdict], ...] = ()
    scopes: dict[str, dict[str, Verdict]] = msgspec.field(default_factory=dict)
    """Those of policy.json, by transport."""
    revoked: frozenset[str] = frozenset()
    """Digests of images, and of certificates and public keys."""
    trust: tuple[TrustedRoot, ...] = ()
    """What keyless signatures are verified against."""

    @property
    def has_minimum_age(self) -> bool:
        return any(verdict.minimum_age for _, verdict in self.rules)

    def verdict(self, source: Reference, destination: StoreName) -> Verdict:
        """Our rules look at the destination; policy.json looks at the source, as skopeo does."""
        for pattern, verdict in self.rules:
            if _matches(str(destination), pattern):
                return verdict
        for transport, names in _names(source):
            scopes = self.scopes.get(transport)
            if scopes is not None:
                return next((scopes[name] for name in names if name in scopes), self.default)
        return self.default


_DOCKER_IO = "docker.io"
"""Docker Hub in references of docker and skopeo; here and in cosign's it is HUB."""


def _matches(reference: str, pattern: str) -> bool:
    """Whether a reference is one of a pattern, in which `*` stands for anything. Hosts are compared in one spelling: a
    rule that was passed over for a capital would leave the image to a weaker one."""
    return fnmatchcase(_spelled(reference), _spelled(pattern))


def _spelled(reference: str) -> str:
    host, slash, path = reference.partition("/")
    host = host.lower()
    return f"{HUB if host == _DOCKER_IO else host}{slash}{path}"


def _names(source: Reference) -> list[tuple[str, list[str]]]:
    """The transports of skopeo that a source belongs to, with its scopes, the narrowest first."""
    store = source.repository
    if isinstance(store, LayoutFolder):
        return [("oci", _folders(store.path, f"{store.path}:{source.tag}" if source.tag else ""))]
    if isinstance(store, ArchiveName):
        return [(name, _folders(store.locations[0], "")) for name in ("oci-archive", "docker-archive")]
    paths = [str(store), *([f"{_DOCKER_IO}/{store.path}"] if store.registry == HUB else [])]
    names = [f"{path}:{source.tag}" for path in paths if source.tag]
    names += [f"{path}@{source.digest}" for path in paths if source.digest]
    while paths[0]:
        names += paths
        paths = [path.rpartition("/")[0] for path in paths]
    labels = store.registry.split(".")
    names += [f"*.{'.'.join(labels[number:])}" for number in range(1, len(labels))]
    return [("docker", [*names, ""])]


def _folders(path: str, first: str) -> list[str]:
    names = [first] if first else []
    while path not in ("", "/"):
        names.append(path)
        path = os.path.dirname(path)
    return [*names, ""]
