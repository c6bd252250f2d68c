"""The decision on one image, before its first byte: what the policy asks for, what is attached, what that proves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Struct

from oci.digest import Digest
from oci.errors import NotTrusted, TransshipError
from oci.output import to_dict
from oci.reference import Reference, Repository, StoreName
from oci.signatures.bundle import NoProof, Proof
from oci.signatures.notation import NotationSigner
from oci.signatures.policy import Requirement, SignaturePolicy, Verdict
from oci.signatures.proofs import Proofs, read_proofs
from oci.store import Source, found_manifest
from oci.units import counted, show_duration

HINT = "`transship policy check` explains each step"


class Decision(Struct, frozen=True, kw_only=True):
    """Whether an image may go to a destination. `scope` is the rule that decided, `reason` one sentence for a refused
    image, `steps` are all that was findings at, in order."""

    image: str
    destination: str
    accepted: bool
    scope: str
    reason: str = ""
    steps: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

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
            decision = self._decided(source, image, destination, age)
            with self._lock:
                self._decisions[image, destination] = decision
        return decision

    def decisions(self, destination: str) -> tuple[Decision, ...]:
        """What was decided so far for one destination."""
        with self._lock:
            return tuple(decision for decision in self._decisions.values() if decision.destination == destination)

    def _decided(self, source: Source, image: Reference, destination: StoreName, age: timedelta | None) -> Decision:
        verdict = self.policy.verdict(image, destination)
        findings = _Findings([f"{self.policy.path}: {verdict.scope} counts for {image} to {destination}"], [])

        def decision(reason: str) -> Decision:
            return Decision(
                image=str(image),
                destination=str(destination),
                accepted=not reason,
                scope=verdict.scope,
                reason=reason,
                steps=(*findings.steps, f"refused: {reason}" if reason else "accepted"),
            )

        if image.digest in self.policy.revoked:
            return decision("the digest is revoked")
        if verdict.reject:
            return decision("no image is accepted")
        if verdict.accept:
            findings.steps.append("no signature is asked for")
            if self._signed:
                return decision("a signature is required, and this rule asks for none")
        else:
            reason = self._unproven(source, image, verdict, findings)
            if reason:
                return decision(reason)
        return decision(_too_young(verdict.minimum_age, age, findings))

    def _unproven(self, source: Source, image: Reference, verdict: Verdict, findings: _Findings) -> str:
        """What the requirements lack, or nothing."""
        now = datetime.now(UTC)
        findings.steps.extend(root.freshness(now) for root in self.policy.trust)
        digest = image.digest or Digest("")
        attestations = any(item.attestation for item in verdict.requirements)
        notation = any(isinstance(signer, NotationSigner) for item in verdict.requirements for signer in item.signers)
        proofs = read_proofs(source, found_manifest(source, digest), attestations=attestations, notation=notation)
        findings.steps.append(f"{counted(len(proofs.candidates), 'signature')} of the digest attached")
        findings.steps.extend(proofs.problems)
        # What has no name that can be believed has none at all: an archive says itself where it came from.
        named: Reference | None = None
        if isinstance(image.repository, Repository):  # as it was asked for: by its tag, or else by its digest
            named = Reference(image.repository, image.tag, None if image.tag else image.digest)
        reasons = (_lacking(item, proofs, named, self.policy.revoked, findings) for item in verdict.requirements)
        return next((reason for reason in reasons if reason), "")


class _Findings(NamedTuple):
    """What was looked at, in order, and the verified times at which signatures that count were there."""

    steps: list[str]
    times: list[datetime]


def _too_young(minimum: timedelta, age: timedelta | None, findings: _Findings) -> str:
    """Why an image isn't old enough, or nothing. What it says of itself doesn't count."""
    if not minimum:
        return ""
    now, text = datetime.now(UTC), f"a minimum age of {show_duration(minimum)} is asked for"
    ages = [*(now - time for time in findings.times), *([age] if age is not None else [])]
    if not ages:
        return f"{text}, and no signature has a verified time, and no mirror's state file says when it was seen first"
    oldest = max(ages)
    age_text = f"it is known for {show_duration(timedelta(seconds=oldest // timedelta(seconds=1))) or '0s'}"
    findings.steps.append(age_text)
    return "" if oldest >= minimum else f"{text}, and {age_text}"


def _lacking(
    requirement: Requirement, proofs: Proofs, image: Reference | None, revoked: frozenset[str], findings: _Findings
) -> str:
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
                findings.steps.append(f"{proof.where}: not signed by {signer.name}: {error}")
                continue
            complaint = _unfit(requirement, proof, image)
            if evidence.digests & revoked:
                complaint = f"{min(evidence.digests & revoked)} is revoked"
            findings.steps.append(f"{proof.where}: signed by {signer.name}{f', but {complaint}' if complaint else ''}")
            if complaint:
                complaints.append(complaint)
            else:
                signed.add(signer.fingerprint)
                findings.times.extend([evidence.time] if evidence.time else [])
    names = {signer.fingerprint: signer.name for signer in requirement.signers}
    missing = [name for fingerprint, name in names.items() if fingerprint not in signed]
    if signed and (requirement.need == "any" or not missing):
        return ""
    if complaints:
        return f"{proof_text} doesn't fit: {complaints[0]}"
    return f"{proof_text} by {' and '.join(missing) if requirement.need == 'all' else ' or '.join(missing)} is missing"


def _unfit(requirement: Requirement, proof: Proof, image: Reference | None) -> str:
    """Why a proof that a signer has made isn't what is asked for. A bundle names the digest and no reference."""
    if requirement.attestation:
        unmet = [item for item in requirement.where if not item.holds(proof.predicate)]
        return f"it doesn't say that {unmet[0]}" if unmet else ""
    if not proof.identity:
        return "it names no reference, and policy.json asks for one" if requirement.named else ""
    return requirement.identity.fits(proof.identity, image)


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
