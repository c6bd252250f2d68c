"""The policy of signatures: which images may go where, and what has to prove it. Our YAML, or `policy.json` as skopeo,
podman and CRI-O have it.

    version: 1
    default: reject
    rules:
      - to: registry.corp.example/mirror/**
        keys: [release.pub, security.pub]
        need: any

The first rule whose pattern the destination matches counts. Paths of keys are relative to the file. Whatever isn't
understood is refused when the file is read: a rule with a mistake in it must not become a weaker rule.
"""

from __future__ import annotations

import base64
import json
import os
import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Struct, field

from oci.digest import parse_digest
from oci.errors import InvalidInput, InvalidReference
from oci.reference import ArchiveName, LayoutFolder, Reference, StoreName, parse_any
from oci.signatures.artifacts import WRITE_ONE
from oci.signatures.keys import PublicKey, read_key, read_key_file

FILE_LIMIT = 4 << 20
Need = Literal["any", "all"]
_Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that the predicate of an attestation must say. `field` is a path of keys with dots between them, and
    numbers for the items of lists. Exactly one of the others is given: a value, several, or a regular expression (RE2)
    for the whole text."""

    field: _Pattern
    equals: Any = None
    is_in: tuple[Any, ...] = msgspec.field(default=(), name="in")
    matches: str = ""

    def __post_init__(self) -> None:
        given = (self.equals is not None, bool(self.is_in), bool(self.matches))
        if sum(given) != 1:
            raise ValueError(f"{self.field}: give one of equals, in and matches")
        if self.matches:
            _expression(self.matches)

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
            return isinstance(value, str) and _expression(self.matches).fullmatch(value) is not None
        wanted = self.is_in or (self.equals,)
        return any(type(value) is type(one) and value == one for one in wanted)

    def __str__(self) -> str:
        if self.matches:
            return f"{self.field} matches {self.matches}"
        return f"{self.field} in {list(self.is_in)}" if self.is_in else f"{self.field} = {self.equals!r}"


class Attestation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attestation that an image must have: its predicate type, the keys, by default those of the rule, and what its
    predicate must say."""

    type: _Pattern
    keys: tuple[str, ...] = ()
    need: Need = "any"
    where: tuple[Condition, ...] = ()


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of images for some destinations. `to` is a pattern of destination repositories, in which `*` stands
    for anything. `signed_as` are patterns of the references that a signature may have been made for; empty for the
    repository that the image comes from."""

    to: _Pattern
    accept: bool = False
    reject: bool = False
    keys: tuple[str, ...] = ()
    need: Need = "any"
    signed_as: tuple[_Pattern, ...] = ()
    attestations: tuple[Attestation, ...] = ()

    def __post_init__(self) -> None:
        if sum((self.accept, self.reject, bool(self.keys or self.attestations))) != 1:
            raise ValueError(f"the rule for {self.to}: give one of accept, reject, and keys or attestations")
        if any(not (one.keys or self.keys) for one in self.attestations):
            raise ValueError(f"the rule for {self.to}: an attestation needs keys")


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as it is written. `revoked` are digests of images that are refused whoever signed them."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    default: Literal["accept", "reject"]
    rules: tuple[Rule, ...] = ()
    revoked: tuple[str, ...] = ()


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
            fits = any(fnmatchcase(signed, pattern) for pattern in self.patterns)
            return "" if fits else f"it was made for {signed!r}"
        wanted = self.reference or (str(image) if image is not None else "")
        if not wanted:
            return "the image comes from no registry: say in `signed_as` which repository it was signed for"
        if self.kind == "remapIdentity":
            wanted = _remapped(wanted, self.prefix, self.signed_prefix)
        try:
            one, other = parse_any(signed), parse_any(wanted)
        except InvalidReference:
            return f"it was made for {signed[:200]!r}, which is no reference"
        same = one.repository == other.repository
        exact = self.kind in ("matchExact", "exactReference") or (
            self.kind in ("matchRepoDigestOrExact", "remapIdentity") and other.digest is None
        )
        if exact:
            same = same and (one.tag, one.digest) == (other.tag, other.digest) and _is_tagged(signed)
        return "" if same else f"it was made for {signed}"


class Requirement(Struct, frozen=True, kw_only=True):
    """One thing that has to be proven. `unknown` says why it can't be, with this program."""

    keys: tuple[PublicKey, ...] = ()
    need: Need = "any"
    identity: Identity = Identity(kind="matchRepository")
    attestation: Attestation | None = None
    named: bool = False
    """Whether only a signature that names a reference counts, which a bundle doesn't."""
    unknown: str = ""


class Verdict(Struct, frozen=True, kw_only=True):
    """What a policy says of a destination and a source, before anything is looked at. `scope` names the rule."""

    scope: str
    accept: bool = False
    reject: bool = False
    requirements: tuple[Requirement, ...] = ()


class SignaturePolicy(Struct, frozen=True, kw_only=True, eq=False):
    """A policy that was read, with its keys. `path` is the file."""

    path: str
    default: Verdict
    rules: tuple[tuple[str, Verdict], ...] = ()
    scopes: dict[str, dict[str, Verdict]] = field(default_factory=dict)
    """Those of policy.json, by transport."""
    revoked: frozenset[str] = frozenset()

    def verdict(self, source: Reference, destination: StoreName) -> Verdict:
        """Our rules look at the destination; policy.json looks at the source, as skopeo does."""
        for pattern, verdict in self.rules:
            if fnmatchcase(str(destination), pattern):
                return verdict
        for transport, names in _names(source):
            scopes = self.scopes.get(transport)
            if scopes is not None:
                return next((scopes[name] for name in names if name in scopes), self.default)
        return self.default


def read_policy(path: str) -> SignaturePolicy:
    """Raises InvalidInput, which names the file, for one that can't be read or says something that isn't known."""
    try:
        with open(path, "rb") as file:
            mark = os.fstat(file.fileno())
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}", hint=WRITE_ONE) from error
    if len(data) > FILE_LIMIT:
        raise InvalidInput(f"{path}: a policy of more than {FILE_LIMIT} bytes")
    return _read(path, data, mark.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: str, data: bytes, changed: int) -> SignaturePolicy:
    del changed
    try:
        if path.endswith(".json"):
            return _containers(path, json.loads(data, object_pairs_hook=_once))
        import yaml  # noqa: PLC0415 - only for policies

        return _ours(path, yaml.safe_load(data))
    except InvalidInput as error:
        text = error.message if error.message.startswith(path) else f"{path}: {error.message}"
        raise type(error)(text, hint=error.hint) from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path}: {error}", hint=WRITE_ONE) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "yaml":
            raise
        raise InvalidInput(f"{path}: {' '.join(str(error).split())}", hint=WRITE_ONE) from error


def _ours(path: str, body: Any) -> SignaturePolicy:
    document = msgspec.convert(body, Document)
    for digest in document.revoked:
        parse_digest(digest)
    base = os.path.dirname(path)

    def keys(names: tuple[str, ...]) -> tuple[PublicKey, ...]:
        return tuple(read_key_file(os.path.join(base, name)) for name in names)

    def verdict(rule: Rule) -> Verdict:
        patterns = rule.signed_as
        identity = Identity(kind="patterns", patterns=patterns) if patterns else Identity(kind="matchRepository")
        asked = [Requirement(keys=keys(rule.keys), need=rule.need, identity=identity)] if rule.keys else []
        asked += [
            Requirement(keys=keys(one.keys or rule.keys), need=one.need, attestation=one) for one in rule.attestations
        ]
        return Verdict(scope=f"to {rule.to}", accept=rule.accept, reject=rule.reject, requirements=tuple(asked))

    accepts = document.default == "accept"
    return SignaturePolicy(
        path=path,
        default=Verdict(scope="default", accept=accepts, reject=not accepts),
        rules=tuple((rule.to, verdict(rule)) for rule in document.rules),
        revoked=frozenset(document.revoked),
    )


# policy.json of containers (containers-policy.json.5).

_KEYS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_LOGS = ("fulcio", "pki", "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return body


def _containers(path: str, body: Any) -> SignaturePolicy:
    if set(body) - {"default", "transports"} or "default" not in body:
        raise InvalidInput("expected `default` and `transports`, and nothing else")
    transports = body.get("transports", {})
    return SignaturePolicy(
        path=path,
        default=_verdict("default", body["default"]),
        scopes={
            transport: {name: _verdict(f"{transport} {name}".strip(), asked) for name, asked in scopes.items()}
            for transport, scopes in transports.items()
        },
    )


def _verdict(scope: str, asked: Any) -> Verdict:
    if not isinstance(asked, list) or not asked:
        raise InvalidInput(f"{scope}: expected a list of requirements that isn't empty")
    kinds = [one["type"] for one in asked]
    requirements = tuple(_required(scope, one) for one in asked if one["type"] != "insecureAcceptAnything")
    accepts = all(kind == "insecureAcceptAnything" for kind in kinds)
    return Verdict(scope=scope, accept=accepts, reject="reject" in kinds, requirements=requirements)


def _required(scope: str, asked: dict[str, Any]) -> Requirement:
    kind = asked["type"]
    if kind == "reject":
        return Requirement(unknown="it is rejected")
    if kind == "signedBy":
        return Requirement(unknown="`signedBy` asks for a signature of GnuPG, which isn't read here")
    if kind != "sigstoreSigned":
        raise InvalidInput(f"{scope}: unknown type of requirement {kind!r}")
    unknown = set(asked) - {"type", "signedIdentity", *_KEYS, *_LOGS}
    if unknown:
        raise InvalidInput(f"{scope}: unknown key {min(unknown)!r}")
    if logs := [name for name in _LOGS if name in asked]:
        return Requirement(unknown=f"`{logs[0]}` asks for a certificate or a log entry, which aren't verified here")
    given = [name for name in _KEYS if name in asked]
    if len(given) != 1:
        raise InvalidInput(f"{scope}: give one of {', '.join(_KEYS)}")
    [name] = given
    values = asked[name] if name.endswith("s") else [asked[name]]
    if name.startswith("keyPath"):
        keys = tuple(map(read_key_file, values))
    else:
        keys = tuple(read_key(base64.b64decode(one, validate=True), f"{scope} {name}") for one in values)
    return Requirement(keys=keys, named=True, identity=_identity(scope, asked.get("signedIdentity")))


_IDENTITIES = {
    "matchExact": (),
    "matchRepoDigestOrExact": (),
    "matchRepository": (),
    "exactReference": ("dockerReference",),
    "exactRepository": ("dockerRepository",),
    "remapIdentity": ("prefix", "signedPrefix"),
}


def _identity(scope: str, asked: dict[str, str] | None) -> Identity:
    body = asked or {"type": "matchRepoDigestOrExact"}
    kind = body.get("type", "")
    if kind not in _IDENTITIES or set(body) != {"type", *_IDENTITIES[kind]}:
        raise InvalidInput(f"{scope}: signedIdentity isn't one of {', '.join(_IDENTITIES)} with its fields")
    return Identity(
        kind=kind,
        reference=body.get("dockerReference", body.get("dockerRepository", "")),
        prefix=body.get("prefix", ""),
        signed_prefix=body.get("signedPrefix", ""),
    )


def _remapped(reference: str, prefix: str, signed: str) -> str:
    """The prefix is a host, or a repository, or a namespace of one."""
    if reference == prefix or reference.startswith((f"{prefix}/", f"{prefix}:", f"{prefix}@")):
        return f"{signed}{reference.removeprefix(prefix)}"
    return reference


def _is_tagged(reference: str) -> bool:
    """Whether a reference says its tag or digest itself: a repository alone stands for no tag."""
    return bool(re.search(r"(:[^/]+|@.+)$", reference))


def _names(source: Reference) -> list[tuple[str, list[str]]]:
    """The transports of skopeo that a source belongs to, with its scopes, the narrowest first."""
    store = source.repository
    if isinstance(store, LayoutFolder):
        return [("oci", _folders(store.path, f"{store.path}:{source.tag}" if source.tag else ""))]
    if isinstance(store, ArchiveName):
        return [(name, _folders(store.locations[0], "")) for name in ("oci-archive", "docker-archive")]
    names = [f"{store}:{source.tag}"] if source.tag else []
    names += [f"{store}@{source.digest}"] if source.digest else []
    path = str(store)
    while path:
        names.append(path)
        path = path.rpartition("/")[0]
    labels = store.registry.split(".")
    names += [f"*.{'.'.join(labels[number:])}" for number in range(1, len(labels))]
    return [("docker", [*names, ""])]


def _folders(path: str, first: str) -> list[str]:
    names = [first] if first else []
    while path not in ("", "/"):
        names.append(path)
        path = os.path.dirname(path)
    return [*names, ""]


@lru_cache(maxsize=256)
def _expression(text: str) -> Any:
    """RE2: what it meets is a stranger's text. Raises ValueError."""
    import re2  # noqa: PLC0415 - only for conditions that have an expression

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        raise ValueError(f"{text!r} is no regular expression") from error
