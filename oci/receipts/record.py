"""Makes the receipt of a relocation, writes it, and attaches it to the root at the destination."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from oci import __version__
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import InvalidInput
from oci.manifest import CREATED, artifact_manifest
from oci.output import check_outputs, os_errors, write_output
from oci.receipts.receipt import (
    ARCHIVE,
    LAYOUT,
    REPOSITORY,
    Place,
    PolicyDecision,
    PolicyRecord,
    Proven,
    ReceivedImage,
    RelocationReceipt,
    RunCounts,
    RunRecord,
    Tool,
    not_utf8,
)
from oci.reference import ArchiveName, LayoutFolder, StoreName, is_utf8
from oci.relocation.driver import RelocationResult, Verify
from oci.relocation.plan import Plan
from oci.relocation.request import CopyOptions, ReceiptOptions, RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import PRESENT
from oci.relocation.verify import Verification
from oci.signatures.artifacts import GateOptions
from oci.signatures.keys import PrivateKey, read_signing_key_file
from oci.signatures.proofs import BUNDLE_V03, PREDICATE_ANNOTATION, RECEIPT_TYPE
from oci.store import Destination, push_artifact

_CONTENT_ANNOTATION = "dev.sigstore.bundle.content"
BYTES = ("bytes_written", "bytes_mounted", "bytes_skipped")
"""What is counted under the same names of a run and of each part of it."""


class Recorder:
    """Records one relocation. Made before the work, so that what can't be done is known by then."""

    def __init__(
        self,
        options: ReceiptOptions,
        request: RelocationRequest,
        *,
        verify: Verify = Verify.NONE,
        key: PrivateKey | None = None,
        run: str = "",
        kind: str = "",
    ) -> None:
        """`verify` is how the destination will have been proven; `key` takes the place of the file that the options
        name; `run` is the id of a flow run; `kind` says what the destination is, where its name doesn't. Raises
        InvalidInput for a key that can't be read, and for options that don't fit together or to the request."""
        options.check_for(request, signed=bool(options.sign or key))
        check_outputs(options.receipt)
        place = request.destination
        places = place.locations if isinstance(place, ArchiveName) else (str(place),)
        for name in (request.bundle, request.image, request.lock, *request.archive, *places):
            if not is_utf8(name):
                raise not_utf8(name)
        self.options = options
        self.request = request
        self.key = key or (read_signing_key_file(options.sign) if options.sign else None)
        if self.key is not None and isinstance(request.destination, ArchiveName):
            self.key.check_signs_digests()
        self._verify = verify
        self._kind = kind
        self._run = begun(run)

    def check(self, plan: Plan) -> None:
        """Raises InvalidInput where there will be nothing to attach a receipt to. To be asked before a byte moves."""
        if self.options.attach_receipt and plan.root is None:
            raise InvalidInput(
                "a receipt is attached to a root, and what a lock or an archive lists has none",
                hint="leave out --attach-receipt and write a file with --receipt, or copy a bundle or an image",
            )

    def signatures_beside(self, locations: Iterable[str]) -> list[str]:
        """Returns the files that hold the signatures of an archive's volumes; none without a key."""
        from oci.archive.open import SIGNATURE_SUFFIX  # noqa: PLC0415 - a copy between registries reads no archive

        return [f"{location}{SIGNATURE_SUFFIX}" for location in locations] if self.key is not None else []

    def record(
        self, session: Session, result: RelocationResult, files: Mapping[str, str] | None = None
    ) -> RelocationReceipt | None:
        """Writes and attaches the receipt of a relocation that is complete; None where none is asked for. `files` are
        the locations of an archive with the SHA-256 of each, in hex. Raises StoreError where it can't be: what was
        relocated stays."""
        if not self.options.requested:
            return None
        plan, spent, files = result.plan, result.receipt, files or {}
        statuses = {outcome.digest: outcome.status for outcome in result.outcomes}
        present = sum(status == PRESENT for status in statuses.values())
        proven = result.verification or Verification()
        bare = receipt_of(session, self.request, plan, statuses)
        kind = self._kind or bare.destination.kind
        receipt = replace(
            bare,
            destination=replace(bare.destination, kind=kind, locations=tuple(files)),
            files=by_name(files),
            run=finished(self._run),
            counts=RunCounts(
                copied=len(bare.images) - present,
                present=present,
                requests=spent.total_requests,
                seconds=round(spent.seconds, 3),
                **{name: getattr(spent, name) for name in BYTES},
            ),
            verification=Proven(mode=self._verify.value, **proven.amounts),
        )
        data = receipt.render(self.key)
        if self.options.attach_receipt and plan.root is not None:
            root = plan.by_digest[plan.root]
            attach(session.destination(plan.destination), Descriptor(root.media_type, root.digest, root.size), data)
        if self.options.receipt:
            write_receipt(self.options.receipt, data)
        return receipt


def begun(run: str = "") -> RunRecord:
    """Returns what a receipt says of a run that begins now. `run` is the id of a flow run; the command's own runs get
    one."""
    return RunRecord(id=run or uuid.uuid4().hex, started=_time(datetime.now(UTC)))


def finished(run: RunRecord) -> RunRecord:
    return replace(run, finished=_time(datetime.now(UTC)))


def write_receipt(path: str, data: bytes) -> None:
    with os_errors(store=path, operation="writing the receipt", named=True):
        write_output(path, data)


def receipt_of(
    session: Session, request: RelocationRequest, plan: Plan, statuses: Mapping[Digest, str] | None = None
) -> RelocationReceipt:
    """Returns what a plan alone says: the same plan gives the same receipt, byte for byte."""
    name = plan.destination
    root = plan.by_digest.get(plan.root) if plan.root else None
    tags = {tag: str(plan.root) for tag in plan.tags if plan.root is not None}
    tags |= {tag: str(manifest.digest) for manifest in plan.manifests for tag in manifest.tags}
    how = CopyOptions(**{field: getattr(request, field) for field in CopyOptions.__struct_fields__})
    return RelocationReceipt(
        tool=Tool(version=__version__),
        source=Place(
            kind=next(kind for kind in ("bundle", "image", "lock", "archive") if getattr(request, kind)),
            name=plan.source,
            digest=str(root.rewritten_from or root.digest) if root is not None else "",
        ),
        destination=place_of(name),
        images=tuple(
            ReceivedImage(
                digest=image.digest,
                source=image.subject,
                role=image.role.value,
                status=(statuses or {}).get(image.digest, ""),
                source_digest=str(image.rewritten_from or ""),
                tags=tuple(sorted(tag for tag, digest in tags.items() if digest == image.digest)),
            )
            for image in plan.images
        ),
        tags=dict(sorted(tags.items())),
        parameters=how.to_dict(),
        policy=policy_asked(session, request, str(name)),
    )


def by_name(files: Mapping[str, str]) -> dict[str, str]:
    """Returns what a receipt says of the files of an archive: their names, without the place."""
    return {os.path.basename(location): digest for location, digest in files.items()}


def attach(destination: Destination, root: Descriptor, data: bytes) -> Digest:
    """Pushes a signed receipt as a referrer of the root, in the form in which cosign attaches bundles."""
    annotations = {
        CREATED: _time(datetime.now(UTC)),
        _CONTENT_ANNOTATION: "dsse-envelope",
        PREDICATE_ANNOTATION: RECEIPT_TYPE,
    }
    manifest = artifact_manifest(BUNDLE_V03, BUNDLE_V03, data, subject=root.to_dict(), annotations=annotations)
    push_artifact(destination, manifest, data)
    return manifest.digest


def place_of(name: StoreName) -> Place:
    """Returns a destination as receipts have it: of an archive, the locations say where it is."""
    if isinstance(name, ArchiveName):
        return Place(kind=ARCHIVE)
    return Place(kind=LAYOUT if isinstance(name, LayoutFolder) else REPOSITORY, name=str(name))


def policy_asked(session: Session, request: GateOptions, destination: str) -> PolicyRecord:
    """Returns what the policy has decided for a destination so far."""
    if not request.policy:
        return PolicyRecord()
    decisions = session.gate(request.policy, signed=request.require_signatures).decisions(destination)
    return PolicyRecord(
        file=request.policy,
        require_signatures=request.require_signatures,
        decisions=tuple(
            PolicyDecision(image=decision.image, accepted=decision.accepted, scope=decision.scope)
            for decision in sorted(decisions, key=lambda decision: decision.image)
        ),
    )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
