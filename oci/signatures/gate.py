"""The decision on one image, before its first byte: what the policy asks for, what is attached, what that proves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from oci.digest import Digest
from oci.errors import NotTrusted, TransshipError
from oci.output import to_dict
from oci.reference import Reference, Repository, StoreName
from oci.signatures.policy import Requirement, SignaturePolicy, read_policy
from oci.signatures.proofs import Proof, Proofs, read_proofs
from oci.store import Source, found_manifest
from oci.units import counted

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

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

    def error(self) -> NotTrusted:
        return NotTrusted(
            f"the policy refuses it ({self.scope}): {self.reason}",
            side="source",
            subject=self.image,
            operation="proving",
            hint=HINT,
        )


class Gate:
    """Decides by one policy. Safe from any thread; each image is decided once for each destination."""

    def __init__(self, policy: SignaturePolicy, *, signed: bool = False) -> None:
        """With `signed`, a rule that accepts without asking for a signature isn't enough."""
        self.policy = policy
        self._signed = signed
        self._lock = threading.Lock()
        self._known: dict[tuple[Reference, StoreName], Decision] = {}

    def decide(self, source: Source, image: Reference, destination: StoreName) -> Decision:
        """`image` names the digest that is copied, and perhaps the tag it was asked for by. Raises what the store
        raises when the proofs can't be read."""
        with self._lock:
            known = self._known.get((image, destination))
        if known is None:
            known = self._decided(source, image, destination)
            with self._lock:
                self._known[image, destination] = known
        return known

    def decisions(self, destination: str) -> tuple[Decision, ...]:
        """What was decided so far for one destination."""
        with self._lock:
            return tuple(one for one in self._known.values() if one.destination == destination)

    def _decided(self, source: Source, image: Reference, destination: StoreName) -> Decision:
        verdict = self.policy.verdict(image, destination)
        steps = [f"{self.policy.path}: {verdict.scope} counts for {image} to {destination}"]

        def decision(reason: str) -> Decision:
            return Decision(
                image=str(image),
                destination=str(destination),
                accepted=not reason,
                scope=verdict.scope,
                reason=reason,
                steps=(*steps, f"refused: {reason}" if reason else "accepted"),
            )

        if image.digest in self.policy.revoked:
            return decision("the digest is revoked")
        if verdict.reject:
            return decision("no image is accepted")
        if verdict.accept:
            steps.append("no signature is asked for")
            asked = "a signature is required, and this rule asks for none"
            return decision(asked if self._signed else "")
        digest = image.digest or Digest("")
        attestations = any(one.attestation is not None for one in verdict.requirements)
        proofs = read_proofs(source, found_manifest(source, digest), attestations=attestations)
        steps.append(f"{counted(len(proofs.found), 'signature')} of the digest attached")
        steps.extend(proofs.problems)
        # What has no name that can be believed has none at all: an archive says itself where it came from.
        named = _as_named(image) if isinstance(image.repository, Repository) else None
        for requirement in verdict.requirements:
            reason = _lacking(requirement, proofs, named, steps)
            if reason:
                return decision(reason)
        return decision("")


def _as_named(image: Reference) -> Reference:
    """As somebody asked for it: by its tag, or else by its digest."""
    return Reference(image.repository, image.tag, None if image.tag else image.digest)


def _lacking(requirement: Requirement, proofs: Proofs, image: Reference | None, steps: list[str]) -> str:
    """What a requirement lacks, or nothing."""
    if requirement.unknown:
        return requirement.unknown
    attestation = requirement.attestation
    what = f"an attestation {attestation.type}" if attestation else "a signature"
    kind = attestation.type if attestation else ""
    candidates = [proof for proof in proofs.found if proof.predicate_type == kind]
    if not candidates:
        return f"it has not {what}"
    signers: dict[str, str] = {}
    complaints: list[str] = []
    for proof in candidates:
        for key in requirement.keys:
            if not proof.signed_by(key):
                steps.append(f"{proof.where}: not signed by {key.name}")
                continue
            complaint = _unfit(requirement, proof, image)
            steps.append(f"{proof.where}: signed by {key.name}{f', but {complaint}' if complaint else ''}")
            if complaint:
                complaints.append(complaint)
            else:
                signers[key.fingerprint] = key.name
    wanted = {key.fingerprint: key.name for key in requirement.keys}
    missing = [name for fingerprint, name in wanted.items() if fingerprint not in signers]
    if signers and (requirement.need == "any" or not missing):
        return ""
    if complaints:
        return f"{what} doesn't fit: {complaints[0]}"
    return f"{what} by {' and '.join(missing) if requirement.need == 'all' else ' or '.join(missing)} is missing"


def _unfit(requirement: Requirement, proof: Proof, image: Reference | None) -> str:
    """Why a proof that a key has signed isn't what is asked for. A bundle names the digest and no reference."""
    if requirement.attestation is not None:
        unmet = [one for one in requirement.attestation.where if not one.holds(proof.predicate)]
        return f"it doesn't say that {unmet[0]}" if unmet else ""
    if not proof.identity:
        return "it names no reference, and policy.json asks for one" if requirement.named else ""
    return requirement.identity.fits(proof.identity, image)


def gate_of(path: str, *, signed: bool = False) -> Gate:
    """Raises InvalidInput for a policy that can't be read."""
    return Gate(read_policy(path), signed=signed)


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

    found = zip(images, workers.map(refusal, images), strict=True)
    return {image.digest: error for (_, image), error in found if error is not None and image.digest is not None}
