"""What a policy of signatures says, which images may go where and what has to prove it; and the decision on one image,
before its first byte: what the policy asks for, what is attached, what that proves."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from oci.digest import Digest
from oci.errors import InvalidReference, NotTrusted, TransshipError
from oci.reference import HUB, ArchiveName, LayoutFolder, Reference, Repository, StoreName, parse_any
from oci.signatures.keyless import KeylessSigner, TrustedRoot, expression
from oci.signatures.keys import PublicKey
from oci.signatures.notation import NotationSigner
from oci.signatures.proofs import NoProof, Proof, Proofs, read_proofs
from oci.store import Source, found_manifest
from oci.units import counted, show_duration

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


class PolicyVerdict(Struct, frozen=True, kw_only=True):
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
    default: PolicyVerdict
    rules: tuple[tuple[str, PolicyVerdict], ...] = ()
    scopes: dict[str, dict[str, PolicyVerdict]] = msgspec.field(default_factory=dict)
    """Those of policy.json, by transport."""
    revoked: frozenset[str] = frozenset()
    """Digests of images, and of certificates and public keys."""
    trust: tuple[TrustedRoot, ...] = ()
    """What keyless signatures are verified against."""

    @property
    def has_minimum_age(self) -> bool:
        return any(verdict.minimum_age for _, verdict in self.rules)

    def verdict(self, source: Reference, destination: StoreName) -> PolicyVerdict:
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
    paths = [str(store)]
    if isinstance(store, Repository) and store.registry == HUB:
        paths.append(f"{_DOCKER_IO}/{store.path}")
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


HINT = "`transship policy check` explains each step"


class Decision(Struct, frozen=True, kw_only=True):
    """Whether an image may go to a destination. `scope` is the rule that decided, `reason` one sentence for a refused
    image, `steps` are all that was looked at, in order."""

    image: str
    destination: str
    accepted: bool
    scope: str
    reason: str = ""
    steps: tuple[str, ...] = ()

    def error(self, hint: str = HINT) -> NotTrusted:
        return NotTrusted(
            f"the policy refuses it ({self.scope}): {self.reason}",
            side="source",
            subject=self.image,
            operation="proving",
            hint=hint,
        )


class Gate:
    """Decides by one policy. Safe from any thread; each image is decided once for each destination."""

    def __init__(self, policy: SignaturePolicy, *, signed: bool = False) -> None:
        """With `signed`, a rule that accepts without asking for a signature isn't enough."""
        self.policy = policy
        self._signed = signed
        self._lock = threading.Lock()
        self._decisions: dict[tuple[Reference, StoreName], Decision] = {}

    def decide(
        self, source: Source, image: Reference, destination: StoreName, *, age: timedelta | None = None
    ) -> Decision:
        """`image` names the digest that is copied, and perhaps the tag it was asked for by; `age` is how
        long the machine knows that digest, where it keeps that. Raises what the store raises when the proofs
        can't be read."""
        with self._lock:
            decision = self._decisions.get((image, destination))
        if decision is None:
            case = _Case(self.policy, image, destination)
            reason = case.refusal(source, age, signed=self._signed)
            decision = Decision(
                image=str(image),
                destination=str(destination),
                accepted=not reason,
                scope=case.verdict.scope,
                reason=reason,
                steps=(*case.steps, f"refused: {reason}" if reason else "accepted"),
            )
            with self._lock:
                self._decisions[image, destination] = decision
        return decision

    def decisions(self, destination: str) -> tuple[Decision, ...]:
        """What was decided so far for one destination."""
        with self._lock:
            return tuple(decision for decision in self._decisions.values() if decision.destination == destination)


class _Case:
    """One image on its way to a destination: what was looked at, in order, and the verified times at which signatures
    that count were there."""

    def __init__(self, policy: SignaturePolicy, image: Reference, destination: StoreName) -> None:
        self.verdict = policy.verdict(image, destination)
        self.steps = [f"{policy.path}: {self.verdict.scope} counts for {image} to {destination}"]
        self._times: list[datetime] = []
        self._policy = policy
        self._image = image
        # What has no name that can be believed has none at all: an archive says itself where it came from.
        self._name: Reference | None = None
        if isinstance(image.repository, Repository):  # as it was asked for: by its tag, or else by its digest
            self._name = Reference(image.repository, image.tag, None if image.tag else image.digest)

    def refusal(self, source: Source, age: timedelta | None, *, signed: bool) -> str:
        """Why the image is refused, or nothing."""
        if self._image.digest in self._policy.revoked:
            return "the digest is revoked"
        if self.verdict.reject:
            return "no image is accepted"
        if not self.verdict.accept:
            return self._unproven(source) or self._too_young(age)
        self.steps.append("no signature is asked for")
        return "a signature is required, and this rule asks for none" if signed else self._too_young(age)

    def _unproven(self, source: Source) -> str:
        """What the requirements lack, or nothing."""
        now, requirements = datetime.now(UTC), self.verdict.requirements
        self.steps.extend(root.freshness(now) for root in self._policy.trust)
        image = found_manifest(source, self._image.digest or Digest(""))
        attestations = any(item.attestation for item in requirements)
        notation = any(isinstance(signer, NotationSigner) for item in requirements for signer in item.signers)
        proofs = read_proofs(source, image, attestations=attestations, notation=notation)
        self.steps.append(f"{counted(len(proofs.candidates), 'signature')} of the digest attached")
        self.steps.extend(proofs.problems)
        return next(filter(None, (self._lacking(item, proofs) for item in requirements)), "")

    def _too_young(self, age: timedelta | None) -> str:
        """Why an image isn't old enough, or nothing. What it says of itself doesn't count."""
        minimum = self.verdict.minimum_age
        if not minimum:
            return ""
        now, text = datetime.now(UTC), f"a minimum age of {show_duration(minimum)} is asked for"
        ages = [*(now - time for time in self._times), *([age] if age is not None else [])]
        if not ages:
            return (
                f"{text}, and no signature has a verified time, and no mirror's state file says when it was seen first"
            )
        oldest = max(ages)
        age_text = f"it is known for {show_duration(timedelta(seconds=oldest // timedelta(seconds=1))) or '0s'}"
        self.steps.append(age_text)
        return "" if oldest >= minimum else f"{text}, and {age_text}"

    def _lacking(self, requirement: Requirement, proofs: Proofs) -> str:
        """What a requirement lacks, or nothing."""
        if requirement.unknown:
            return requirement.unknown
        kind = requirement.attestation
        name = f"attestation {kind}" if kind else "signature"
        proof_text = f"an {name}" if kind else f"a {name}"
        candidates = [proof for proof in proofs.candidates if proof.predicate_type == kind]
        if not candidates:
            return f"it has no {name}"
        signed: set[str] = set()
        complaints: list[str] = []
        for proof in candidates:
            for signer in requirement.signers:
                try:
                    evidence = signer.evidence(proof)
                except NoProof as error:
                    self.steps.append(f"{proof.where}: not signed by {signer.name}: {error}")
                    continue
                complaint = self._unfit(requirement, proof)
                if revoked := evidence.digests & self._policy.revoked:
                    complaint = f"{min(revoked)} is revoked"
                self.steps.append(f"{proof.where}: signed by {signer.name}{f', but {complaint}' if complaint else ''}")
                if complaint:
                    complaints.append(complaint)
                else:
                    signed.add(signer.fingerprint)
                    self._times.extend([evidence.time] if evidence.time else [])
        names = {signer.fingerprint: signer.name for signer in requirement.signers}
        missing = [name for fingerprint, name in names.items() if fingerprint not in signed]
        if signed and (requirement.need == "any" or not missing):
            return ""
        if complaints:
            return f"{proof_text} doesn't fit: {complaints[0]}"
        return f"{proof_text} by {(' and ' if requirement.need == 'all' else ' or ').join(missing)} is missing"

    def _unfit(self, requirement: Requirement, proof: Proof) -> str:
        """Why a proof that a signer has made isn't what is asked for. A bundle names the digest and no reference."""
        if requirement.attestation:
            unmet = [item for item in requirement.where if not item.holds(proof.predicate)]
            return f"it doesn't say that {unmet[0]}" if unmet else ""
        if not proof.identity:
            return "it names no reference, and policy.json asks for one" if requirement.named else ""
        return requirement.identity.fits(proof.identity, self._name)


def refusals(
    gate: Gate, images: Sequence[tuple[Source, Reference]], destination: StoreName, workers: Any
) -> dict[Digest, TransshipError]:
    """Why images are refused, by digest; also what their proofs raised when they couldn't be read."""

    def refusal(job: tuple[Source, Reference]) -> TransshipError | None:
        try:
            decision = gate.decide(*job, destination)
        except TransshipError as error:
            return error
        return None if decision.accepted else decision.error()

    answers = zip(images, workers.map(refusal, images), strict=True)
    return {image.digest: error for (_, image), error in answers if error is not None and image.digest is not None}
