"""Compares a receipt with the destination as it is now, and names what differs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from msgspec import Struct

from oci.archive.entry import DOCKER_ARCHIVE
from oci.archive.inventory import verify_archive
from oci.archive.open import hash_of, open_reader
from oci.digest import Digest, parse_digest
from oci.errors import IntegrityError, InvalidDocument, InvalidInput, NoSuchFile, NotFound, NotSigned, TransshipError
from oci.manifest import CREATED
from oci.output import read_named, to_dict
from oci.receipts.receipt import ARCHIVE, RECEIPT_LIMIT, RelocationReceipt, read_receipt
from oci.reference import LAYOUT_PREFIX, ArchiveName, StoreName, parse_any, parse_store
from oci.relocation.session import Session
from oci.relocation.verify import verify_store
from oci.signatures.keys import PublicKey
from oci.signatures.proofs import BUNDLE, MOST, PREDICATE_ANNOTATION, RECEIPT_TYPE, this_type
from oci.store import found_manifest
from oci.units import counted, show_size

LOST_IMAGE, LOST_TAG, REPLACED_TAG, DAMAGED = "lost image", "lost tag", "replaced tag", "damaged"
LOST_FILE, CHANGED_FILE = "lost file", "changed file"


class ReceiptDifference(Struct, frozen=True, kw_only=True):
    """One thing that isn't as the receipt says. `actual` is empty for what isn't there; `detail` is a sentence."""

    kind: str
    subject: str
    expected: str = ""
    actual: str = ""
    detail: str = ""

    def __str__(self) -> str:
        if self.detail:
            return f"{self.kind}: {self.detail}"
        return (
            f"{self.kind}: {self.subject} {f'shows {self.actual}' if self.actual else 'is not there'}, not as received"
        )


class Checked(Struct, frozen=True, kw_only=True):
    """What was compared, and what differs. Sizes in bytes."""

    destination: str
    images: int = 0
    tags: int = 0
    files: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes_hashed: int = 0
    differences: tuple[ReceiptDifference, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

    def __str__(self) -> str:
        parts = [counted(self.images, "image"), counted(self.tags, "tag") if self.tags else ""]
        parts += [counted(self.files, "file") if self.files else "", counted(self.blobs, "blob")]
        hashed = f", {show_size(self.bytes_hashed)} hashed" if self.bytes_hashed else ""
        verdict = counted(len(self.differences), "difference") if self.differences else "all as received"
        return f"{self.destination}: {', '.join(filter(None, parts))}{hashed}: {verdict}"


def find_receipt(session: Session, name: str, keys: Sequence[PublicKey]) -> RelocationReceipt:
    """Reads a receipt from a file or, where there is none of that name, what is attached to an image: the latest that
    one of the keys has signed, of the 200 that say that they are the newest. Raises NotSigned, and NotFound where there
    is no receipt at all."""
    if os.path.exists(name):
        data = read_named(name, "reading the receipt", limit=RECEIPT_LIMIT, hint="name the file of a receipt")
        return read_receipt(data, keys, name)
    if not (name.startswith(LAYOUT_PREFIX) or "@" in name or ":" in name.rpartition("/")[2]):
        hint = "check the path; an image that a receipt is attached to is named with its tag or digest"
        raise NoSuchFile("there is no such file", subject=name, operation="reading the receipt", hint=hint)
    reference = parse_any(name)
    store = session.destination(reference.repository)
    digest = found_manifest(store, reference.identifier).digest
    latest, refused = None, None
    listed = [referrer for referrer in store.referrers(digest) if referrer.artifact_type.startswith(BUNDLE)]
    listed.sort(key=lambda referrer: referrer.annotations.get(CREATED, ""), reverse=True)
    for referrer in listed[:MOST]:
        where = f"{name} ({referrer.digest})"
        try:
            manifest = store.get_manifest(referrer.digest)
            is_receipt = this_type(manifest.annotations.get(PREDICATE_ANNOTATION, "")) == RECEIPT_TYPE
            for layer in manifest.layers if is_receipt else ():
                if not layer.media_type.startswith(BUNDLE) or layer.size > RECEIPT_LIMIT:
                    continue
                receipt = read_receipt(b"".join(store.read_blob(layer)), keys, where)
                latest = max(filter(None, (latest, receipt)), key=lambda each: each.run.finished if each.run else "")
        except (NotFound, NotSigned, InvalidDocument, IntegrityError) as error:
            refused = error
    if latest is not None:
        return latest
    if refused is not None:
        raise refused
    raise NotFound(
        "no receipt is attached to it",
        store=str(reference.repository),
        subject=str(digest),
        operation="looking for a receipt",
        hint="name the file that `copy --receipt` has written, or attach one: --attach-receipt",
    )


def check_receipt(
    session: Session, receipt: RelocationReceipt, *, at: Sequence[str] = (), deep: bool = False
) -> Checked:
    """Asks the destination for everything that the receipt names, and for what that needs; with `deep` reads and hashes
    every blob. `at` says where it is now, if not where the receipt says: a repository, a folder, or the files of an
    archive in order. Raises what a store raises that can't be asked."""
    if receipt.destination.kind in (ARCHIVE, DOCKER_ARCHIVE):
        return _archive(session, receipt, tuple(at) or receipt.destination.locations, deep=deep)
    if len(at) > 1:
        raise InvalidInput("a repository or a folder is one place", hint="give --at once")
    return _store(session, receipt, parse_store(at[0] if at else receipt.destination.name), deep=deep)


def _store(session: Session, receipt: RelocationReceipt, name: StoreName, *, deep: bool) -> Checked:
    store = session.destination(name)
    differences: list[ReceiptDifference] = []
    images = [parse_digest(image.digest) for image in receipt.images]
    answers = list(zip(images, session.workers.map(store.head_manifest, images), strict=True))
    lost = {digest for digest, shown in answers if shown is None}
    differences.extend(
        ReceiptDifference(kind=LOST_IMAGE, subject=f"{name}@{digest}", expected=digest)
        for digest, shown in answers
        if shown is None
    )
    shown_by = session.workers.map(store.head_manifest, receipt.tags)
    for (tag, expected), shown in zip(receipt.tags.items(), shown_by, strict=True):
        if shown is None:
            differences.append(ReceiptDifference(kind=LOST_TAG, subject=f"{name}:{tag}", expected=expected))
        elif shown.digest != expected:
            changed = ReceiptDifference(
                kind=REPLACED_TAG, subject=f"{name}:{tag}", expected=expected, actual=shown.digest
            )
            differences.append(changed)
    present = [digest for digest in images if digest not in lost]
    verified = verify_store(session, name, present, foreign_layers=False, deep=deep)
    differences.extend(
        ReceiptDifference(kind=DAMAGED, subject=str(name), detail=problem)
        for problem in verified.problems
        if not any(digest in problem for digest in lost)
    )
    return Checked(
        destination=str(name),
        images=len(images),
        tags=len(receipt.tags),
        **verified.amounts,
        differences=tuple(differences),
    )


def _archive(session: Session, receipt: RelocationReceipt, locations: Sequence[str], *, deep: bool) -> Checked:
    """Every file is read and hashed; one that differs is looked into, to say which image it hits. An archive for docker
    has its images in another form, under other digests."""
    if len(locations) != len(receipt.files):
        raise InvalidInput(
            f"the archive has {len(receipt.files)} files, and {len(locations)} were named",
            hint="give --at for each of them, in order",
        )
    name = ArchiveName.of(*locations)
    differences = []
    hashed = 0
    for location, (file, expected) in zip(name.locations, receipt.files.items(), strict=True):
        try:
            reader = open_reader(location, session.object_store(location), side="destination", cancel=session.cancel)
        except NotFound:
            differences.append(ReceiptDifference(kind=LOST_FILE, subject=location, expected=expected))
            continue
        with closing(reader):
            digest = hash_of(reader)
            hashed += reader.size
        if digest != expected:
            differences.append(ReceiptDifference(kind=CHANGED_FILE, subject=file, expected=expected, actual=digest))
    blobs, manifests = 0, 0
    if receipt.destination.kind == ARCHIVE and all(each.kind != LOST_FILE for each in differences):
        deep = deep or bool(differences)
        try:
            archive = session.archive(name, "destination")
        except TransshipError as error:
            problems: tuple[str, ...] = (str(error),)
        else:
            verdict = verify_archive(archive, session.workers, deep=deep)
            blobs, manifests, problems = verdict.blobs, len(archive.contents.manifests), tuple(verdict.problems)
            differences.extend(
                ReceiptDifference(kind=LOST_IMAGE, subject=image.source, expected=image.digest)
                for image in receipt.images
                if Digest(image.digest) not in archive.contents.manifests
            )
        differences.extend(ReceiptDifference(kind=DAMAGED, subject=str(name), detail=problem) for problem in problems)
    return Checked(
        destination=str(name),
        images=len(receipt.images),
        files=len(receipt.files),
        manifests=manifests,
        blobs=blobs,
        bytes_hashed=hashed,
        differences=tuple(differences),
    )
