"""Reads a policy of signatures from its file: our YAML, or `policy.json` as skopeo, podman and CRI-O have it.

    version: 1
    default: reject
    rules:
      - to: registry.corp.example/mirror/**
        keys: [release.pub, security.pub]
        need: any

The first rule whose pattern the destination matches counts. Paths are relative to the file. Whatever isn't understood
is refused when the file is read: a rule with a mistake in it must not become a weaker rule.
"""

from __future__ import annotations

import base64
import os
from functools import cache, lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Struct

from oci.descriptor import parse_json
from oci.digest import parse_digest
from oci.documents.composer import read_located
from oci.errors import InvalidConfig, InvalidDocument, InvalidInput, cause_and_step
from oci.output import read_named
from oci.signatures.artifacts import WRITE_ONE
from oci.signatures.keyless import CertificateIdentity, KeylessSigner, TrustedRoot, read_trusted_root
from oci.signatures.keys import read_key, read_key_file
from oci.signatures.notation import read_trust_store
from oci.signatures.policy import Condition, Identity, Need, PolicyVerdict, Requirement, SignaturePolicy, Signer, Text
from oci.signatures.proofs import this_type
from oci.units import parse_duration

FILE_LIMIT = 4 << 20


class TrustStore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates that signatures of Notary must lead to, the subject that the signing certificate must have, and the
    certificates of timestamp authorities. A subject is a list of attributes, `C=US, O=corp, CN=release*`; each must
    stand in the certificate."""

    certificates: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    subject: Text
    timestamps: tuple[str, ...] = ()


class Attestation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attestation that an image must have: its predicate type, who must have signed it, by default as the rule says,
    and what its predicate must say."""

    type: Text
    keys: tuple[str, ...] = ()
    keyless: tuple[CertificateIdentity, ...] = ()
    need: Need = "any"
    where: tuple[Condition, ...] = ()


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of images for some destinations. `to` is a pattern of destination repositories, in which `*` stands
    for anything. `signed_as` are patterns of the references that a signature may have been made for; empty for the
    repository that the image comes from. `minimum_age` is a length of time, `7d`."""

    to: Text
    accept: bool = False
    reject: bool = False
    keys: tuple[str, ...] = ()
    keyless: tuple[CertificateIdentity, ...] = ()
    notation: tuple[TrustStore, ...] = ()
    need: Need = "any"
    signed_as: tuple[Text, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    minimum_age: str = ""

    def __post_init__(self) -> None:
        signed = bool(self.keys or self.keyless or self.notation)
        if sum((self.accept, self.reject, signed or bool(self.attestations))) != 1:
            raise ValueError(
                f"the rule for {self.to}: give one of accept, reject, and who signs: keys, keyless, notation or "
                "attestations"
            )
        if any(not (item.keys or item.keyless or self.keys or self.keyless) for item in self.attestations):
            raise ValueError(f"the rule for {self.to}: an attestation needs keys or keyless")
        if self.reject and self.minimum_age:
            raise ValueError(f"the rule for {self.to}: what is rejected has no minimum_age")


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as it is written. `revoked` are digests of images, and of certificates and public keys (SHA-256 of their
    DER form), that are refused whatever else a rule says. `trusted_root` is the file that keyless signatures are
    verified against; without it, the one that the library brings."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    default: Literal["accept", "reject"]
    rules: tuple[Rule, ...] = ()
    revoked: tuple[str, ...] = ()
    trusted_root: str = ""


def read_policy(path: str) -> SignaturePolicy:
    """Raises InvalidInput, which names the file, for one that can't be read or says something that isn't known."""
    data = read_named(path, "reading the policy", limit=FILE_LIMIT, hint=WRITE_ONE)
    return _read(path, data, os.stat(path).st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: str, data: bytes, changed: int) -> SignaturePolicy:
    del changed
    try:
        if path.endswith(".json"):
            return _containers(path, parse_json(data, once=True))
        return _ours(path, read_located(data, path).value)
    except InvalidInput as error:
        cause, _ = cause_and_step(str(error))  # also which file could not be read
        text = cause if cause.startswith(path) else f"{path}: {cause}"
        kind = InvalidConfig if isinstance(error, InvalidDocument) else type(error)
        raise kind(text, hint=error.hint or WRITE_ONE) from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path}: {error}", hint=WRITE_ONE) from error


def _ours(path: str, body: Any) -> SignaturePolicy:
    document = msgspec.convert(body, Document)
    for digest in document.revoked:
        parse_digest(digest)

    def at(name: str) -> str:
        return os.path.join(os.path.dirname(path), name)

    @cache
    def root() -> TrustedRoot:
        """Is read only where a rule is keyless."""
        return read_trusted_root(at(document.trusted_root) if document.trusted_root else "")

    def signers(
        keys: tuple[str, ...], keyless: tuple[CertificateIdentity, ...], notation: tuple[TrustStore, ...] = ()
    ) -> tuple[Signer, ...]:
        return (
            *(read_key_file(at(name)) for name in keys),
            *(KeylessSigner(identity, root()) for identity in keyless),
            *(
                read_trust_store(list(map(at, item.certificates)), item.subject, list(map(at, item.timestamps)))
                for item in notation
            ),
        )

    def verdict(rule: Rule) -> PolicyVerdict:
        patterns = rule.signed_as
        identity = Identity(kind="patterns", patterns=patterns) if patterns else Identity(kind="matchRepository")
        signed = signers(rule.keys, rule.keyless, rule.notation)
        requirements = [Requirement(signers=signed, need=rule.need, identity=identity)] if signed else []
        requirements += [
            Requirement(
                signers=signers(item.keys, item.keyless) or signers(rule.keys, rule.keyless),
                need=item.need,
                attestation=this_type(item.type),
                where=item.where,
            )
            for item in rule.attestations
        ]
        return PolicyVerdict(
            scope=f"to {rule.to}",
            accept=rule.accept,
            reject=rule.reject,
            requirements=tuple(requirements),
            minimum_age=parse_duration(rule.minimum_age),
        )

    accepts = document.default == "accept"
    rules = tuple((rule.to, verdict(rule)) for rule in document.rules)
    keyless = any(rule.keyless or any(item.keyless for item in rule.attestations) for rule in document.rules)
    return SignaturePolicy(
        path=path,
        default=PolicyVerdict(scope="default", accept=accepts, reject=not accepts),
        rules=rules,
        revoked=frozenset(document.revoked),
        trust=(root(),) if keyless else (),
    )


# policy.json of containers (containers-policy.json.5).

_KEYS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_LOGS = ("fulcio", "pki", "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")


def _containers(path: str, body: Any) -> SignaturePolicy:
    if set(body) - {"default", "transports"} or "default" not in body:
        raise InvalidInput("expected `default` and `transports`, and nothing else")
    transports = body.get("transports", {})
    return SignaturePolicy(
        path=path,
        default=_verdict("default", body["default"]),
        scopes={
            transport: {name: _verdict(f"{transport} {name}".strip(), entry) for name, entry in scopes.items()}
            for transport, scopes in transports.items()
        },
    )


def _verdict(scope: str, entry: Any) -> PolicyVerdict:
    if not isinstance(entry, list) or not entry:
        raise InvalidInput(f"{scope}: expected a list of requirements that isn't empty")
    kinds = [item["type"] for item in entry]
    requirements = tuple(_required(scope, item) for item in entry if item["type"] != "insecureAcceptAnything")
    accepts = all(kind == "insecureAcceptAnything" for kind in kinds)
    return PolicyVerdict(scope=scope, accept=accepts, reject="reject" in kinds, requirements=requirements)


def _required(scope: str, entry: dict[str, Any]) -> Requirement:
    kind = entry["type"]
    if kind == "reject":
        return Requirement(unknown="it is rejected")
    if kind == "signedBy":
        return Requirement(unknown="`signedBy` asks for a signature of GnuPG, which isn't read here")
    if kind != "sigstoreSigned":
        raise InvalidInput(f"{scope}: unknown type of requirement {kind!r}")
    unknown = set(entry) - {"type", "signedIdentity", *_KEYS, *_LOGS}
    if unknown:
        raise InvalidInput(f"{scope}: unknown key {min(unknown)!r}")
    if logs := [name for name in _LOGS if name in entry]:
        return Requirement(unknown=f"`{logs[0]}` asks for a certificate or a log entry, which aren't verified here")
    names = [name for name in _KEYS if name in entry]
    if len(names) != 1:
        raise InvalidInput(f"{scope}: give one of {', '.join(_KEYS)}")
    [name] = names
    values = entry[name] if name.endswith("s") else [entry[name]]
    if name.startswith("keyPath"):
        keys = tuple(map(read_key_file, values))
    else:
        keys = tuple(read_key(base64.b64decode(item, validate=True), f"{scope} {name}") for item in values)
    return Requirement(signers=keys, named=True, identity=_identity(scope, entry.get("signedIdentity")))


_IDENTITIES = {
    "matchExact": (),
    "matchRepoDigestOrExact": (),
    "matchRepository": (),
    "exactReference": ("dockerReference",),
    "exactRepository": ("dockerRepository",),
    "remapIdentity": ("prefix", "signedPrefix"),
}


def _identity(scope: str, entry: dict[str, str] | None) -> Identity:
    body = entry or {"type": "matchRepoDigestOrExact"}
    kind = body.get("type", "")
    if kind not in _IDENTITIES or set(body) != {"type", *_IDENTITIES[kind]}:
        raise InvalidInput(f"{scope}: signedIdentity isn't one of {', '.join(_IDENTITIES)} with its fields")
    return Identity(
        kind=kind,
        reference=body.get("dockerReference", body.get("dockerRepository", "")),
        prefix=body.get("prefix", ""),
        signed_prefix=body.get("signedPrefix", ""),
    )
