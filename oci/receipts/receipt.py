"""A receipt: what a relocation has brought where, as an in-toto statement that a key may sign.

Its subjects are the digests at the destination: each image, and each file or object of an archive. The predicate says
where they came from, how, and with which result; docs/reference/receipts.md describes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from oci.archive.entry import DOCKER_ARCHIVE
from oci.digest import parse_digest
from oci.errors import InvalidDocument, InvalidInput, InvalidReference, NotSigned
from oci.reference import clipped, parse_store, parse_tag
from oci.signatures.keys import PrivateKey, PublicKey, render_bundle
from oci.signatures.proofs import (
    IN_TOTO,
    RECEIPT_TYPE,
    STATEMENT,
    Envelope,
    NoProof,
    envelope_in,
    object_of,
    pae,
    parse_object,
    this_type,
)

RECEIPT_LIMIT = 64 << 20
"""Bytes of a receipt that are read: some 200,000 images."""

REPOSITORY, LAYOUT, ARCHIVE = "repository", "layout", "archive"
"""Kinds of destinations; a fourth is DOCKER_ARCHIVE, of which the file is all that can be compared."""


class Subject(Struct, frozen=True):
    """One thing at the destination; `digest` by algorithm, in hex, as in-toto has it."""

    name: str
    digest: Mapping[str, str]


class ReceivedImage(Struct, frozen=True, kw_only=True):
    """One image, bundle or index, or what is attached to one. `source` is the reference that it was read by;
    `source_digest` its digest there, empty where that is the same."""

    digest: str
    source: str
    role: str
    status: str = ""
    source_digest: str = ""
    tags: tuple[str, ...] = ()


class Place(Struct, frozen=True, kw_only=True):
    """A source or destination. `kind` of a source is that of the request (bundle, image, lock, archive), that of a
    destination `repository`, `layout`, `archive` or `docker-archive`; `locations` are those of an archive."""

    kind: str
    name: str = ""
    digest: str = ""
    locations: tuple[str, ...] = ()


class Tool(Struct, frozen=True, kw_only=True):
    name: str = "transship"
    version: str = ""


class RunRecord(Struct, frozen=True, kw_only=True):
    """`id` is that of the flow run, or one of the command's own; times are RFC 3339, in UTC."""

    id: str = ""
    started: str = ""
    finished: str = ""


class Proven(Struct, frozen=True, kw_only=True):
    """What verifying the destination has found before names moved: nothing wrong, or there is no receipt."""

    mode: str = "none"
    manifests: int = 0
    blobs: int = 0
    bytes_hashed: int = 0


class PolicyDecision(Struct, frozen=True, kw_only=True):
    """What the policy of signatures said of one image; `scope` is the rule."""

    image: str
    accepted: bool
    scope: str


class PolicyRecord(Struct, frozen=True, kw_only=True):
    """The policy that was asked; `file` is empty where there was none."""

    file: str = ""
    require_signatures: bool = False
    decisions: tuple[PolicyDecision, ...] = ()


class RunCounts(Struct, frozen=True, kw_only=True):
    """Images, bytes, requests and seconds of the run."""

    copied: int = 0
    present: int = 0
    bytes_written: int = 0
    bytes_mounted: int = 0
    bytes_skipped: int = 0
    requests: int = 0
    seconds: float = 0.0


class RelocationReceipt(Struct, frozen=True, kw_only=True):
    """The predicate. Receipts inside archives have no `run`, no `counts` and no location: the same source gives the
    same archive, byte for byte."""

    tool: Tool
    source: Place
    destination: Place
    images: tuple[ReceivedImage, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    """Names at the destination, with the digest that each shows."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The options of the relocation that aren't the defaults."""
    policy: PolicyRecord = PolicyRecord()
    verification: Proven = Proven()
    run: RunRecord | None = None
    counts: RunCounts | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file or object of an archive, in hex, by its name without a folder; in order."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        files = (Subject(name, {"sha256": digest}) for name, digest in self.files.items())
        place = self.destination.name
        images = (
            Subject(f"{place}@{image.digest}" if place else image.source, _by_algorithm(image.digest))
            for image in self.images
        )
        return (*files, *images)

    @property
    def statement(self) -> dict[str, Any]:
        return {
            "_type": STATEMENT,
            "subject": msgspec.to_builtins(self.subjects),
            "predicateType": RECEIPT_TYPE,
            "predicate": msgspec.to_builtins(self),
        }

    def render(self, key: PrivateKey | None = None) -> bytes:
        """Returns the statement as JSON or, signed by a key, a Sigstore bundle with it. Raises InvalidInput for a name
        that isn't UTF-8."""
        try:
            payload = msgspec.json.encode(self.statement)
        except UnicodeEncodeError as error:
            raise not_utf8(str(error.object)) from error
        if key is None:
            return payload
        signature = key.sign(pae(IN_TOTO, payload))
        return render_bundle(Envelope(payload_type=IN_TOTO, payload=payload, signatures=(signature,)), key.public.hint)


def not_utf8(name: str) -> InvalidInput:
    return InvalidInput(f"{clipped(name)} isn't UTF-8, and a receipt is", hint="rename it, or leave out the receipt")


def read_receipt(data: bytes, keys: Sequence[PublicKey], where: str) -> RelocationReceipt:
    """Returns a receipt that one of the keys has signed; nothing of it is believed before. Raises NotSigned where none
    has, and InvalidDocument for what is signed and isn't a receipt. `where` is its name for messages."""

    def not_signed(message: str, hint: str) -> NotSigned:
        return NotSigned(message, store=where, operation="proving who signed it", hint=hint)

    try:
        if len(data) > RECEIPT_LIMIT:
            raise NoProof(f"it has more than {RECEIPT_LIMIT} bytes")  # noqa: TRY301 - as all other damage
        body = parse_object(data)
        if "predicateType" in body:
            raise not_signed("the receipt has no signature", "make it with `copy --receipt FILE --sign KEY`")
        envelope = envelope_in(body)
    except NoProof as error:
        hint = "name the file of `copy --receipt FILE --sign KEY`"
        raise not_signed(f"this is no signed receipt: {error}", hint) from error
    if not any(key.verifies(envelope.message, signature) for key in keys for signature in envelope.signatures):
        hint = "name the key of its signer; a receipt that was changed has no valid signature"
        raise not_signed(f"it isn't signed by {' or '.join(key.name for key in keys)}", hint)
    return _read_statement(envelope, where)


def _read_statement(envelope: Envelope, where: str) -> RelocationReceipt:
    try:
        if envelope.payload_type != IN_TOTO:
            raise NoProof(f"the envelope holds {envelope.payload_type[:80]!r}")  # noqa: TRY301 - as all other damage
        body = parse_object(envelope.payload)
        if body.get("_type") != STATEMENT or this_type(str(body.get("predicateType"))) != RECEIPT_TYPE:
            raise NoProof(f"it is a statement of another kind, {str(body.get('predicateType'))[:200]!r}")  # noqa: TRY301
        receipt = msgspec.convert(object_of(body.get("predicate"), "predicate"), RelocationReceipt)
        subjects = msgspec.convert(body.get("subject"), tuple[Subject, ...])
        for digest in (*(image.digest for image in receipt.images), *receipt.tags.values()):
            parse_digest(digest)
        for tag in receipt.tags:
            parse_tag(tag)
        kind, files = receipt.destination.kind, len(receipt.files)
        if kind in (REPOSITORY, LAYOUT):
            parse_store(receipt.destination.name)
        elif kind not in (ARCHIVE, DOCKER_ARCHIVE) or not files:
            message = f"its destination is none that can be asked: {kind[:80]!r} with {files} files"
            raise NoProof(message)  # noqa: TRY301
        named, listed = ({tuple(each.digest.items()) for each in part} for part in (subjects, receipt.subjects))
        if named != listed:
            raise NoProof("its subjects aren't what its predicate lists")  # noqa: TRY301
    except (NoProof, ValueError, InvalidReference) as error:
        raise InvalidDocument(f"{where}: this is no receipt: {error}", hint="see docs/reference/receipts.md") from error
    return receipt


def _by_algorithm(digest: str) -> dict[str, str]:
    algorithm, _, text = digest.partition(":")
    return {algorithm: text}
