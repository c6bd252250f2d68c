"""The driver of a relocation: plan, transfer, publish, verify. The command, mirrors and flows all go through it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from msgspec import Struct

from oci.digest import Digest
from oci.errors import Incomplete, InvalidInput, StoreError, TransshipError
from oci.meter import Receipt
from oci.relocation.plan import Plan
from oci.relocation.planner import Seen, make_plan
from oci.relocation.publish import Published, check_complete, publish_content, publish_names
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import ImageOutcome, failure, transfer_all, transfer_image
from oci.relocation.verify import Verification, verify
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
        """The report of `copy --report`: plain values, which JSON has."""
        return {
            "source": self.plan.source,
            "destination": str(self.plan.destination),
            "root": self.plan.root,
            "images": [outcome.to_dict() for outcome in self.outcomes],
            "unreadable": [
                {"subject": one.subject, "error": one.message, "retryable": one.retryable} for one in self.plan.failures
            ],
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
        session: Session,
        request: RelocationRequest | None,
        *,
        verify: Verify = Verify.NONE,
        seen: Seen | None = None,
        plan: Plan | None = None,
    ) -> None:
        """`seen` is what is known of the destination already; `plan` one that was made before, which a part of a
        relocation has in the place of a request."""
        self.session = session
        self.request = request
        self.verify = verify
        self.outcomes: dict[Digest, ImageOutcome] = {}
        self.published = Published()
        self.verification: Verification | None = None
        self.error: TransshipError | None = None
        self._seen = seen
        self._plan = plan

    @property
    def plan(self) -> Plan:
        """Raises InvalidInput before the plan is made."""
        if self._plan is None:
            raise InvalidInput("this relocation has no plan yet")
        return self._plan

    def make_plan(self) -> Plan:
        """Asks the source and the destination; writes nothing. Keeps a plan that was given or made before."""
        if self._plan is None:
            if self.request is None:
                raise InvalidInput("this relocation has neither a request nor a plan")
            self._plan = make_plan(self.session, self.request, seen=self._seen)
        return self._plan

    def transfer(self, digest: Digest) -> ImageOutcome:
        """Brings one image to the destination and notes its outcome, a failed one too. Raises what stopped it."""
        try:
            outcome = transfer_image(self.session, self.plan, digest)
        except TransshipError as error:
            self.outcomes[digest] = failure(self.plan.by_digest[digest], error)
            raise
        self.outcomes[digest] = outcome
        return outcome

    def transfer_all(self, on_image: Callable[[ImageOutcome], None] | None = None) -> None:
        """Every image of the plan, some at a time. One that fails is an outcome with its error; the others go on."""

        def note(outcome: ImageOutcome) -> None:
            self.outcomes[outcome.digest] = outcome
            if on_image is not None:
                on_image(outcome)

        transfer_all(self.session, self.plan, on_done=note)

    def check_complete(self) -> None:
        """Raises Incomplete, with what failed, unless every image of the plan is in place."""
        check_complete(self.plan, self.outcomes.values())

    @property
    def closing_steps(self) -> tuple[Step, ...]:
        """What follows the transfer, in order."""
        return (Step.PUBLISH,) if self.verify is Verify.NONE else (Step.CONTENT, Step.VERIFY, Step.NAMES)

    def take(self, step: Step) -> None:
        """Takes one of the `closing_steps`. Raises Incomplete for images that aren't in place, and for a destination
        that doesn't have what it should; no name has moved by then."""
        if step in (Step.PUBLISH, Step.CONTENT):
            self.check_complete()
            locations = publish_content(self.session, self.plan, hold_roots=step is Step.CONTENT)
            self.published = Published(locations=locations)
        if step is Step.VERIFY:
            self._prove()
        if step in (Step.PUBLISH, Step.NAMES):
            tags = publish_names(self.session, self.plan)
            self.published = Published(tags=tags, locations=self.published.locations)

    def run(
        self,
        *,
        on_plan: Callable[[Plan], None] | None = None,
        on_image: Callable[[ImageOutcome], None] | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> RelocationResult:
        """All steps. Raises what ended it, Incomplete when images failed; `result` has what was done by then. `on_step`
        is called before each of the `closing_steps`."""
        try:
            plan = self.make_plan()
            if on_plan is not None:
                on_plan(plan)
            self.transfer_all(on_image)
            for step in self.closing_steps:
                if on_step is not None:
                    on_step(step)
                self.take(step)
        except TransshipError as error:
            self.error = error
            raise
        return self.result()

    def result(self) -> RelocationResult:
        """What was done so far, outcomes in the order of the plan. Raises InvalidInput before the plan is made."""
        outcomes = self.outcomes
        return RelocationResult(
            plan=self.plan,
            outcomes=tuple(outcomes[image.digest] for image in self.plan.images if image.digest in outcomes),
            published=self.published,
            verification=self.verification,
            receipt=self.session.meter.receipt(),
            error=self.error,
        )

    def _prove(self) -> None:
        found = verify(self.session, self.plan, deep=self.verify is Verify.DEEP)
        self.verification = found
        if found.problems:
            raise Incomplete(
                f"{counted(len(found.problems), 'problem')} at {self.plan.destination}; no name was moved",
                [StoreError(problem, side="destination") for problem in found.problems],
                hint="run the copy again with --repair: it sends what is missing",
            )


def relocate(
    session: Session,
    request: RelocationRequest,
    *,
    verify: Verify = Verify.NONE,
    on_plan: Callable[[Plan], None] | None = None,
    on_image: Callable[[ImageOutcome], None] | None = None,
) -> RelocationResult:
    """Plans, transfers, verifies if asked to, and publishes. Raises Incomplete, having moved no name, when an image
    failed."""
    return Relocation(session, request, verify=verify).run(on_plan=on_plan, on_image=on_image)
