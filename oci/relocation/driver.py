"""The driver of a relocation: plan, transfer, publish, verify. The command, mirrors and flows all go through it.

Publishing makes the result visible, last of all: bundles, their locations images, then the names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from oci.bundle import tagnames
from oci.bundle.image import locations_image
from oci.bundle.lockfile import ImageLocations, LocatedImage
from oci.digest import Digest
from oci.errors import Incomplete, InvalidInput, NotFound, NotTrusted, PartFailed, Refused, StoreError, TransshipError
from oci.meter import Receipt, unheard
from oci.relocation.fanout import as_done
from oci.relocation.plan import Plan, PlannedBundle, PlannedManifest, Role
from oci.relocation.planner import OnNode, make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import (
    CHILD_UNREAD,
    FAILED,
    ImageOutcome,
    failure,
    load_manifest,
    put_manifest,
    transfer_image,
)
from oci.relocation.verify import Verification, verify
from oci.store import Destination, found_manifest, reader_of
from oci.units import counted


class Verify(StrEnum):
    """How the destination is proven before the names move."""

    NONE = "none"
    HEAD = "head"
    DEEP = "deep"


class Step(StrEnum):
    """A step after the transfer, for drivers that run each as a task of its own; see `Relocation.closing_steps`."""

    PUBLISH = "publish"
    CONTENT = "publish content"
    VERIFY = "verify"
    NAMES = "publish names"


class Published(Struct, frozen=True, kw_only=True):
    """What got a name. `tags` are those that were moved, in order; `locations` the digests of locations images.
    `complete` says that all names are as they should be, those that had not to be moved too."""

    tags: tuple[str, ...] = ()
    locations: tuple[Digest, ...] = ()
    complete: bool = False


class RelocationResult(Struct, frozen=True, kw_only=True):
    """What a relocation has done: all of it, or, with an `error`, the part before that."""

    plan: Plan
    outcomes: tuple[ImageOutcome, ...] = ()
    published: Published = Published()
    verification: Verification | None = None
    """None where none was asked for, or where the relocation ended before it."""
    receipt: Receipt = Receipt()
    error: TransshipError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the report of `copy --report` in plain values, for JSON."""
        return {
            "source": self.plan.source,
            "destination": str(self.plan.destination),
            "root": self.plan.root,
            "repair": self.plan.repair,
            "counts": dict(Counter(outcome.status for outcome in self.outcomes)),
            "images": [outcome.to_dict() for outcome in self.outcomes],
            "unreadable": [
                {"subject": failure.subject, "error": failure.message, "retryable": failure.retryable}
                for failure in self.plan.failures
            ],
            "attached_left": self.plan.attached_left,
            "tags": list(self.published.tags),
            "locations": list(self.published.locations),
            "verification": self.verification.to_dict() if self.verification else None,
            "error": str(self.error) if self.error else "",
            "receipt": self.receipt.to_dict(),
        }


class Relocation:
    """One relocation in a session. `run` takes all steps. A driver that wraps each step (a Prefect task) calls
    `make_plan`, `transfer` for each image of the plan, and `take` for each of `closing_steps`, in this order.

    Every step may be repeated. With `verify` the names move after the proof, and not at all when it fails.
    """

    def __init__(
        self,
        session: Session | None,
        request: RelocationRequest | None,
        *,
        verify: Verify = Verify.NONE,
        plan: Plan | None = None,
    ) -> None:
        """`session` may come later, by `open`, before the first step. `plan` is one that was made before, which a part
        of a relocation has in the place of a request."""
        self.whole_request = request
        self.verify = verify
        self.made_plan = plan
        """None until there is a plan."""
        self.outcomes: dict[Digest, ImageOutcome] = {}
        self.published = Published()
        self.verification: Verification | None = None
        self.error: TransshipError | None = None
        """What ended it early."""
        self._session = session

    def open(self, session: Session) -> None:
        self._session = session

    @property
    def session(self) -> Session:
        """Raises InvalidInput before it is opened."""
        if self._session is None:
            raise InvalidInput("this relocation has no session yet")
        return self._session

    @property
    def request(self) -> RelocationRequest:
        """Raises InvalidInput for a part of a relocation."""
        if self.whole_request is None:
            raise InvalidInput("a part of a relocation has a plan, and no request")
        return self.whole_request

    @property
    def plan(self) -> Plan:
        """Raises InvalidInput before the plan is made."""
        if self.made_plan is None:
            raise InvalidInput("this relocation has no plan yet")
        return self.made_plan

    def make_plan(self, on_node: OnNode = unheard) -> Plan:
        """Asks the source and the destination, and writes nothing. Keeps a plan that was given or made before."""
        if self.made_plan is None:
            self.made_plan = make_plan(self.session, self.request, on_node=on_node)
        return self.made_plan

    def transfer(self, digest: Digest) -> ImageOutcome:
        """Brings one image to the destination and notes its outcome, a failed one too. Raises what stopped it."""
        try:
            outcome = self.outcomes[digest] = transfer_image(self.session, self.plan, digest)
        except TransshipError as error:
            self.outcomes[digest] = failure(self.plan.by_digest[digest], error)
            raise
        return outcome

    def transfer_all(self, on_image: Callable[[ImageOutcome], None] = unheard) -> None:
        """Transfers every image of the plan, biggest first, some at a time. A failed image is an outcome with its
        error; the others go on. Raises Cancelled, and nothing else."""
        session, plan = self.session, self.plan
        for image in filter(lambda image: image.present, plan.images):
            on_image(self.transfer(image.digest))
        begin = partial(session.workers.submit, self.transfer)
        waiting = [image.digest for image in plan.to_transfer]
        for digest, future in as_done(waiting, session.concurrency * 2, begin):
            with suppress(TransshipError):  # the outcome says so
                future.result()
            on_image(self.outcomes[digest])

    def check_complete(self) -> None:
        """Raises Incomplete, with what failed, unless every image of the plan is in place."""
        failures: list[TransshipError] = []
        for image in self.plan.images:
            outcome = self.outcomes.get(image.digest)
            if outcome is None:
                failures.append(StoreError("was not transferred", subject=str(image.digest), retryable=True))
            elif outcome.status == FAILED:
                failures.append(PartFailed(outcome.error, subject=outcome.subject, retryable=outcome.retryable))
        _check(self.plan, failures, some_done=any(outcome.status != FAILED for outcome in self.outcomes.values()))

    @property
    def closing_steps(self) -> tuple[Step, ...]:
        """The steps that follow the transfer, in order."""
        return (Step.PUBLISH,) if self.verify is Verify.NONE else (Step.CONTENT, Step.VERIFY, Step.NAMES)

    def take(self, step: Step) -> None:
        """Takes one of the `closing_steps`. Raises Incomplete for images that aren't in place, and for a destination
        that doesn't have what it should; no name has moved by then."""
        if step in (Step.PUBLISH, Step.CONTENT):
            self.check_complete()
            self.session.wait_for_proofs()
            self.published = Published(locations=self._publish_content(hold_roots=step is Step.CONTENT))
        if step is Step.VERIFY:
            self.verification = verify(self.session, self.plan, deep=self.verify is Verify.DEEP)
            if problems := self.verification.problems:
                raise Incomplete(
                    f"{counted(len(problems), 'problem')} at {self.plan.destination}; no name was moved",
                    [StoreError(problem, side="destination") for problem in problems],
                    hint="run the copy again with --repair: it sends what is missing",
                )
        if step in (Step.PUBLISH, Step.NAMES):
            tags = self._publish_names()
            if step is Step.NAMES:
                self._check_names()
            self.published = replace(self.published, tags=tags, complete=True)

    def run(
        self,
        *,
        on_plan: Callable[[Plan], None] = unheard,
        on_image: Callable[[ImageOutcome], None] = unheard,
        on_step: Callable[[Step], None] = unheard,
    ) -> RelocationResult:
        """Takes all steps. Raises what ended it, Incomplete when images failed; `result` has what was done by then.
        `on_step` is called before each of the `closing_steps`."""
        try:
            plan = self.make_plan()
            on_plan(plan)
            self.transfer_all(on_image)
            for step in self.closing_steps:
                on_step(step)
                self.take(step)
        except TransshipError as error:
            self.error = error
            raise
        return self.result()

    def result(self) -> RelocationResult:
        """Returns what was done so far, outcomes in the order of the plan. Raises InvalidInput before the plan is
        made."""
        outcomes = self.outcomes
        return RelocationResult(
            plan=self.plan,
            outcomes=tuple(outcomes[image.digest] for image in self.plan.images if image.digest in outcomes),
            published=self.published,
            verification=self.verification,
            receipt=self.session.meter.receipt(),
            error=self.error,
        )

    def _publish_content(self, *, hold_roots: bool) -> tuple[Digest, ...]:
        """Writes what names are to point at: bundles and their locations images, innermost first. Gives the digests of
        the locations images. With `hold_roots`, a root that only its tag is to hold is pushed by digest as well, so
        that it can be verified before the tag moves."""
        plan = self.plan
        listed = {bundle.digest: bundle for bundle in plan.bundles}
        locations: list[Digest] = []
        for manifest in plan.manifests:
            self.session.cancel.check()
            if not manifest.present and (manifest.is_bundle or (hold_roots and manifest.held_by_tag)):
                self._push(manifest, manifest.keep_alive)
            if manifest.digest in listed:
                locations.append(self._push_locations(listed[manifest.digest]))
        return tuple(locations)

    def _push_locations(self, bundle: PlannedBundle) -> Digest:
        """Pushes the locations image. It is deterministic, so that a second run finds the same digest and writes
        nothing.

        A registry with immutable tags may refuse to replace older locations. The older ones stay then, as with imgpkg:
        they are a hint that readers verify.
        """
        destination, fresh = self.session.destination(self.plan.destination), self.plan.fresh
        image = locations_image(ImageLocations(tuple(LocatedImage(*entry) for entry in bundle.entries)))
        tag = tagnames.locations(bundle.digest)
        older = None if fresh else destination.head_manifest(tag)
        if older is not None and older.digest == image.manifest.digest:
            return image.manifest.digest
        for descriptor, data in image.blobs:
            destination.put_blob(descriptor, reader_of(data), fresh=fresh)
        destination.put_manifest(image.manifest, tagnames.keep_alive(image.manifest.digest))
        try:
            destination.put_manifest(image.manifest, tag)
        except Refused as error:
            if older is None or "immutable" not in str(error).lower():
                raise
        return image.manifest.digest

    def _publish_names(self) -> tuple[str, ...]:
        """Moves the tags, last of all: attachments first, the tags of the root last. Gives them in this order."""
        plan = self.plan
        destination = self.session.destination(plan.destination)
        tags: list[str] = []
        for manifest in sorted(plan.manifests, key=lambda manifest: manifest.role is Role.ROOT):
            for tag in manifest.tags:
                self.session.cancel.check()
                _keep_backup(destination, plan.backup, tag, manifest.digest)
                self._push(manifest, tag)
                tags.append(tag)
        return tuple(tags)

    def _push(self, manifest: PlannedManifest, tag: str) -> None:
        destination = self.session.destination(self.plan.destination)
        put_manifest(self.session, destination, load_manifest(self.session, manifest), tag)

    def _check_names(self) -> None:
        """Asks the destination for each tag that was moved. Raises Incomplete when one shows something else: a registry
        may answer a PUT with 201 and keep nothing."""
        name = self.plan.destination
        destination = self.session.destination(name)
        wrong: list[TransshipError] = []
        for manifest in self.plan.manifests:
            for tag in manifest.tags:
                self.session.cancel.check()
                try:  # a registry that answers 404 to a HEAD may have it for a GET (Nexus)
                    shown: str = found_manifest(destination, tag).digest
                except NotFound:
                    shown = "nothing"
                if shown != manifest.digest:
                    message = f"{name}: {tag} was pushed as {manifest.digest} and shows {shown}"
                    wrong.append(StoreError(message, side="destination", retryable=True))
        if wrong:
            raise Incomplete(f"{counted(len(wrong), 'name')} at {name} can't be read back", wrong)


def _keep_backup(destination: Destination, template: str, tag: str, following: Digest) -> None:
    """Gives the image that a tag shows a tag of its own, before it moves to `following`. A tag that is there already
    is never overwritten: the first image of a day stays under its date."""
    shown = destination.head_manifest(tag) if template else None
    if shown is None or shown.digest == following:
        return
    name = tagnames.backup(template, tag, shown.digest, datetime.now(UTC).date())
    if destination.head_manifest(name) is None:
        destination.put_manifest(destination.get_manifest(shown.digest), name)


def check_readable(plan: Plan) -> None:
    """Raises Incomplete, as the relocation itself will, when a part of the source couldn't be read."""
    if plan.failures:
        images = list(plan.images)
        broken = [PartFailed(CHILD_UNREAD, subject=image.subject) for image in images if plan.unread_child(image)]
        _check(plan, broken, some_done=len(broken) < len(images))


def _check(plan: Plan, failed: Sequence[TransshipError], *, some_done: bool) -> None:
    """Raises Incomplete for images that failed, and for parts of the source that couldn't be read."""
    failures = [
        *(
            (NotTrusted if part.refused else PartFailed)(
                part.message, side="source", subject=part.subject, retryable=part.retryable
            )
            for part in plan.failures
        ),
        *failed,
    ]
    if failures:
        again = "run the same again" if any(each.retryable for each in failures) else "mend that and run it again"
        raise Incomplete(
            f"{len(failures)} of {len(list(plan.images)) + len(plan.failures)} images failed; no name was moved",
            failures,
            some_done=some_done,
            hint=f"{again}: what is there already is not sent again",
        )
