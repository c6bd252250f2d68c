"""Makes the receipt of a relocation, writes it, and attaches it to the root at the destination."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from oci import __version__
from oci.descriptor import OCI_EMPTY, OCI_MANIFEST, Descriptor
from oci.digest import Digest, digest_of
from oci.errors import InvalidInput
from oci.manifest import Manifest, parse_manifest
from oci.meter import Receipt
from oci.output import check_outputs, os_errors, write_output
from oci.receipts.receipt import (
    ARCHIVE,
    LAYOUT,
    PREDICATE_TYPE,
    REPOSITORY,
    Counts,
    Place,
    Policy,
    PolicyDecision,
    Proven,
    ReceivedImage,
    RelocationReceipt,
    Run,
    Tool,
)
from oci.reference import ArchiveName, LayoutFolder
from oci.relocation.plan import Plan, PlannedManifest
from oci.relocation.request import CopyOptions, ReceiptOptions, RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import PRESENT, ImageOutcome
from oci.relocation.verify import Verification
from oci.signatures.bundle import BUNDLE_V03
from oci.signatures.keys import SigningKey, read_signing_key_file
from oci.store import reader_of

PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"
_CONTENT_ANNOTATION = "dev.sigstore.bundle.content"
_CREATED = "org.opencontainers.image.created"


class Recorder:
    """Records one relocation. Made before the work, so that what can't be done is known by then."""

    def __init__(
        self, options: ReceiptOptions, request: RelocationRequest, *, key: SigningKey | None = None, run: str = ""
    ) -> None:
        """`key` takes the place of the file that the options name; `run` is the id of a flow run. Raises InvalidInput
        for a key that can't be read, and for options that don't fit together or to the request."""
        options.check_for(request, signed=bool(options.sign or key))
        check_outputs(options.receipt)
        self.options = options
        self.request = request
        self.key = key or (read_signing_key_file(options.sign) if options.sign else None)
        if self.key is not None and isinstance(request.destination, ArchiveName):
            self.key.check_signs_digests()
        self._run = run or uuid.uuid4().hex
        self._started = datetime.now(UTC)

    def check(self, plan: Plan) -> None:
        """Raises InvalidInput where there will be nothing to attach a receipt to. To be asked before a byte moves."""
        if self.options.attach_receipt and plan.root is None:
            raise InvalidInput(
                "a receipt is attached to a root, and what a lock or an archive lists has none",
                hint="leave out --attach-receipt and write a file with --receipt, or copy a bundle or an image",
            )

    def relocated(
        self,
        session: Session,
        plan: Plan,
        outcomes: Iterable[ImageOutcome],
        spent: Receipt,
        *,
        mode: str,
        verification: Verification | None,
    ) -> RelocationReceipt | None:
        """Writes and attaches the receipt of a relocation that is complete; None where none is asked for. Raises
        StoreError where it can't be: what was relocated stays."""
        if not self.options.requested:
            return None
        receipt = self._receipt(session, plan, outcomes, spent, mode=mode, verification=verification)
        data = receipt.render(self.key)
        if self.options.attach_receipt and plan.root is not None:
            attach(session, plan, plan.by_digest[plan.root], data)
        self._write(data)
        return receipt

    def archived(
        self,
        session: Session,
        plan: Plan,
        files: Mapping[str, str],
        spent: Receipt,
        *,
        mode: str,
        verification: Verification | None,
    ) -> RelocationReceipt | None:
        """Writes the receipt of an archive that is complete; `files` are its locations with the SHA-256 of each."""
        if not self.options.requested:
            return None
        receipt = self._receipt(session, plan, (), spent, mode=mode, verification=verification)
        names = {location.rpartition("/")[2]: digest for location, digest in files.items()}
        place = replace(receipt.destination, locations=tuple(files))
        receipt = replace(receipt, destination=place, files=names)
        self._write(receipt.render(self.key))
        return receipt

    def _receipt(
        self,
        session: Session,
        plan: Plan,
        outcomes: Iterable[ImageOutcome],
        spent: Receipt,
        *,
        mode: str,
        verification: Verification | None,
    ) -> RelocationReceipt:
        statuses = {outcome.digest: outcome.status for outcome in outcomes}
        proven = verification or Verification()
        bare = receipt_of(session, self.request, plan, statuses)
        present = sum(status == PRESENT for status in statuses.values())
        run = Run(id=self._run, started=_time(self._started), finished=_time(datetime.now(UTC)))
        counts = Counts(
            copied=len(bare.images) - present,
            present=present,
            bytes_written=spent.bytes_written,
            bytes_mounted=spent.bytes_mounted,
            bytes_skipped=spent.bytes_skipped,
            requests=spent.total_requests,
            seconds=round(spent.seconds, 3),
        )
        verified = Proven(mode=mode, manifests=proven.manifests, blobs=proven.blobs, bytes_hashed=proven.bytes_hashed)
        return replace(bare, run=run, counts=counts, verification=verified)

    def _write(self, data: bytes) -> None:
        path = self.options.receipt
        if path:
            with os_errors(store=path, operation="writing the receipt"):
                write_output(path, data)


def receipt_of(
    session: Session, request: RelocationRequest, plan: Plan, statuses: Mapping[Digest, str] | None = None
) -> RelocationReceipt:
    """Returns what a plan alone says: the same plan gives the same receipt, byte for byte."""
    name = plan.destination
    kind = ARCHIVE if isinstance(name, ArchiveName) else LAYOUT if isinstance(name, LayoutFolder) else REPOSITORY
    tags = {tag: str(plan.root) for tag in plan.tags if plan.root is not None}
    tags |= {tag: str(manifest.digest) for manifest in plan.manifests for tag in manifest.tags}
    how = CopyOptions(**{field: getattr(request, field) for field in CopyOptions.__struct_fields__})
    return RelocationReceipt(
        tool=Tool(version=__version__),
        source=Place(
            kind=next(kind for kind in ("bundle", "image", "lock", "archive") if getattr(request, kind)),
            name=plan.source,
            digest=_source_digest(plan),
        ),
        destination=Place(kind=kind, name="" if kind == ARCHIVE else str(name)),
        images=tuple(_image(image, (statuses or {}).get(image.digest, ""), tags) for image in plan.images),
        tags=dict(sorted(tags.items())),
        parameters=how.to_dict(),
        policy=_policy(session, request, str(name)),
    )


def attach(session: Session, plan: Plan, root: PlannedManifest, data: bytes) -> Digest:
    """Pushes a signed receipt as a referrer of the root, in the form in which cosign attaches bundles."""
    manifest = _referrer(Descriptor(root.media_type, root.digest, root.size), data)
    destination = session.destination(plan.destination)
    contents = {digest_of(content): content for content in (b"{}", data)}
    for blob in manifest.blobs:
        destination.put_blob(blob, reader_of(contents[blob.digest]))
    destination.put_manifest(manifest)
    return manifest.digest


def _referrer(subject: Descriptor, data: bytes) -> Manifest:
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": BUNDLE_V03,
        "config": Descriptor(OCI_EMPTY, digest_of(b"{}"), 2).to_dict(),
        "layers": [Descriptor(BUNDLE_V03, digest_of(data), len(data)).to_dict()],
        "subject": subject.to_dict(),
        "annotations": {
            _CREATED: _time(datetime.now(UTC)),
            _CONTENT_ANNOTATION: "dsse-envelope",
            PREDICATE_ANNOTATION: PREDICATE_TYPE,
        },
    }
    return parse_manifest(json.dumps(body, separators=(",", ":")).encode(), OCI_MANIFEST)


def _image(image: PlannedManifest, status: str, tags: Mapping[str, str]) -> ReceivedImage:
    return ReceivedImage(
        digest=image.digest,
        source=image.subject,
        role=image.role.value,
        status=status,
        source_digest=str(image.rewritten_from or ""),
        tags=tuple(sorted(tag for tag, digest in tags.items() if digest == image.digest)),
    )


def _source_digest(plan: Plan) -> str:
    root = plan.by_digest.get(plan.root) if plan.root else None
    return str(root.rewritten_from or root.digest) if root is not None else ""


def _policy(session: Session, request: RelocationRequest, destination: str) -> Policy:
    if not request.policy:
        return Policy()
    decisions = session.gate(request.policy, signed=request.require_signatures).decisions(destination)
    return Policy(
        file=request.policy,
        require_signatures=request.require_signatures,
        decisions=tuple(
            PolicyDecision(image=decision.image, accepted=decision.accepted, scope=decision.scope)
            for decision in sorted(decisions, key=lambda decision: decision.image)
        ),
    )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
