"""A whole run: what its mirrors may decide, one session, mirrors compared and carried out side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from typing import TypeAlias

from msgspec.structs import replace

from oci import __version__
from oci.bundle import tagnames
from oci.bundle.lockfile import pinned_by, read_lock
from oci.digest import Digest
from oci.documents.variables import CONSENT, agreed_to
from oci.errors import Cancelled, CancelToken, InvalidInput, TransshipError
from oci.export.export import sign_archive, sums_of
from oci.meter import Meter, PartThreads, unheard
from oci.mirror.compare import compare
from oci.mirror.comparison import Comparison, DestinationComparison, TagState, WorkItem
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.execute import SKIPPED, ItemOutcome, execute, outcome_of, unaccounted
from oci.mirror.policy import OnFailure
from oci.mirror.results import INTERRUPTED, MirrorReport, made_of, not_begun, of_failure
from oci.mirror.run_state import Shared
from oci.mirror.selection import expanded
from oci.output import os_errors
from oci.receipts.receipt import Place, ReceivedImage, RelocationReceipt, RunCounts, Tool
from oci.receipts.record import BYTES, attach, begun, by_name, finished, place_of, policy_asked, write_receipt
from oci.reference import ArchiveName, LayoutFolder, StoreName, in_object_store
from oci.registry.credentials.credential import ANONYMOUS, Credentials, Fixed
from oci.registry.http.address_policy import host_of, is_loopback
from oci.registry.options import RegistryOptions
from oci.relocation.plan import Role
from oci.relocation.session import Access, Session
from oci.relocation.transfer import DONE, PRESENT
from oci.signatures.artifacts import MirrorReceipts
from oci.signatures.keys import PrivateKey, read_signing_key_file
from oci.store import found_manifest

SIDE_BY_SIDE = 16
"""Mirrors of a run that are compared and carried out at a time; the session bounds what they do together."""

Reach: TypeAlias = Callable[[str, int], Access]
"""How a driver reaches one side, "source" or "destination", with so many threads, where the configuration says nothing;
and who it is there."""


_NO_RULES = ("name", "source", "destinations", "schedule", "on_push", "limits", "receipts")
"""Options of a mirror that don't say what it takes, or how, but when it runs and where."""


class MirrorRecorder:
    """Records what a run of a mirror has done: made before the work, so that a key that can't be read is known by
    then."""

    def __init__(self, mirror: Mirror, *, key: PrivateKey | None = None, run: str = "") -> None:
        """`key` is that of the block that the mirror names, `run` the id of a flow run. Raises InvalidInput."""
        self._mirror = mirror
        self._options = options = mirror.receipts
        if options.signing_key and not (key or options.sign):
            raise InvalidInput(
                f"the receipts of {mirror.name} are signed with the block {options.signing_key}, which a flow loads",
                hint="for runs without Prefect, name a file of this machine as well: receipts: {sign: KEY}",
            )
        self._key = key or (read_signing_key_file(options.sign) if options.sign else None)
        if self._key is not None and any(each.archive for each in mirror.destinations):
            self._key.check_signs_digests()
        self._run = begun(run)

    def record(self, session: Session, comparison: Comparison, outcomes: Iterable[ItemOutcome]) -> None:
        """Writes and attaches the receipts: of each destination that was compared, what is in place or was copied.
        What failed or was refused is in none. Raises what a store raises: what was copied stays."""
        carried = [outcome for outcome in outcomes if outcome.status == DONE]
        for number, result in enumerate(comparison.destinations, 1):
            delivered = [outcome for outcome in carried if outcome.destination == result.destination]
            name = result.destination
            if isinstance(name, ArchiveName):
                if delivered:
                    sums = sums_of(session, name.locations)
                    if self._key is not None:
                        sign_archive(session, sums, self._key)
                    shown = {tag.tag: Digest(tag.source) for tag in result.tags if tag.source} or self._pinned()
                    self._write(self._receipt(session, result, shown, delivered, sums), number)
                continue
            if self._options.folder and result.error is None:
                self._write(
                    self._receipt(session, result, self._shown(session, name, result, delivered), delivered), number
                )
            for outcome in delivered if self._options.attach else ():
                if outcome.digest:  # an image or a bundle; a lock has no root
                    destination, digest = session.destination(name), Digest(outcome.digest)
                    receipt = self._receipt(session, result, _shown_by(outcome), [outcome])
                    attach(destination, found_manifest(destination, digest), receipt.render(self._key))

    def _shown(
        self, session: Session, name: StoreName, result: DestinationComparison, delivered: Sequence[ItemOutcome]
    ) -> dict[str, Digest]:
        """What tags show there; one that is settled was not asked for. What a lock pins has none."""
        states = (TagState.IN_PLACE, TagState.MORE_THERE)
        placed = {tag.tag: tag.destination or tag.source for tag in result.tags if tag.state in states}
        if self._mirror.source.lock:
            return self._pinned() if placed or delivered else {}
        store, unasked = session.destination(name), [tag for tag, digest in placed.items() if not digest]
        heads = zip(unasked, session.workers.map(store.head_manifest, unasked), strict=True)
        shown = {tag: Digest(digest) for tag, digest in placed.items() if digest}
        shown |= {tag: head.digest for tag, head in heads if head is not None}
        return shown | {tag: digest for each in delivered if each.digest for tag, digest in _shown_by(each).items()}

    def _pinned(self) -> dict[str, Digest]:
        return {digest: digest for digest in pinned_by(read_lock(self._mirror.source.lock))}

    def _receipt(
        self,
        session: Session,
        result: DestinationComparison,
        shown: Mapping[str, Digest],
        delivered: Sequence[ItemOutcome],
        files: Mapping[str, str] | None = None,
    ) -> RelocationReceipt:
        """Returns what is said of tags and what each shows, or of a digest that stands for itself. `files` are those of
        an archive, all of which is new, and whose names no registry shows."""
        files, copied = files or {}, {outcome.digest for outcome in delivered}
        tags_of: dict[Digest, list[str]] = {}
        for name, digest in sorted(shown.items()):
            tags_of.setdefault(digest, []).extend([name] if name != digest else [])
        images = tuple(
            ReceivedImage(
                digest=digest,
                source=self._mirror.name_of(tags[0]) if tags else str(self._mirror.source),
                role=Role.ROOT.value,
                status=DONE if files or digest in copied else PRESENT,
                tags=tuple(tags),
            )
            for digest, tags in tags_of.items()
        )
        present = sum(image.status == PRESENT for image in images)
        amounts = {name: sum(getattr(outcome, name) for outcome in delivered) for name in BYTES}
        return RelocationReceipt(
            tool=Tool(version=__version__),
            source=Place(kind="mirror", name=str(self._mirror.source)),
            destination=replace(place_of(result.destination), locations=tuple(files)),
            images=images,
            tags={} if files else {tag: str(digest) for digest, tags in tags_of.items() for tag in tags},
            parameters={name: value for name, value in self._mirror.to_dict().items() if name not in _NO_RULES},
            policy=policy_asked(session, self._mirror, str(result.destination)),
            run=finished(self._run),
            counts=RunCounts(copied=len(images) - present, present=present, **amounts),
            files=by_name(files),
        )

    def _write(self, receipt: RelocationReceipt, number: int) -> None:
        """A mirror of a namespace has a folder: its names are those of repositories, which no path leaves."""
        if self._options.folder:
            end = f"@{number}" if number > 1 else ""  # no repository has it in its name
            path = os.path.join(self._options.folder, f"{self._mirror.name}{end}.receipt.json")
            with os_errors(store=path, operation="making the folder of the receipt"):
                os.makedirs(os.path.dirname(path), exist_ok=True)
            write_receipt(path, receipt.render(self._key))


def _shown_by(outcome: ItemOutcome) -> dict[str, Digest]:
    """What was moved to a digest: its tags, which those of cosign are not, or itself where it has none."""
    tags = [tag for tag in outcome.tags if not tagnames.is_cosign(tag)]
    return dict.fromkeys(tags or [outcome.digest], Digest(outcome.digest))


def check_consent(
    config: MirrorsConfig, mirrors: Iterable[Mirror], allowed: frozenset[str], base: Callable[[str], RegistryOptions]
) -> None:
    """Who writes mirrors decides what is mirrored, and not where this machine's logins go or which of its files are
    read and written. Raises InvalidInput for what needs the machine's consent and neither `allowed` nor the settings
    of the run (`base`, by host) give it. A file of the machine may name other files of the machine."""
    requested: list[tuple[str, str]] = []
    for host, registry in config.by_host.items():
        local = base(host)
        if registry.insecure and not local.insecure and not is_loopback(host_of(host)):
            requested.append(("insecure", f"plain http to {host}"))
        if registry.proxy and registry.proxy != local.proxy:
            requested.append(("proxy", f"a proxy for {host}"))
        if not registry.verify_tls and local.verify_tls:
            requested.append(("verify_tls", f"certificates of {host} unchecked"))
        if (registry.aws_profile, registry.aws_role) != (local.aws_profile, local.aws_role):
            requested.append(("aws", f"an AWS login for {host}" if registry.aws_profile or registry.aws_role else ""))
        requested.extend(
            ("paths", path) for path in (*registry.ca_files, registry.client_key, registry.client_certificate)
        )
    for name, bucket in config.buckets.items():
        scheme, _, address = bucket.endpoint.partition("://")
        if scheme == "http" and not is_loopback(host_of(address.partition("/")[0])):
            requested.append(("insecure", f"plain http for the bucket {name}"))
        if not bucket.verify_tls:
            requested.append(("verify_tls", f"certificates for the bucket {name} unchecked"))
        requested.append(("paths", bucket.ca_file))
    for mirror in mirrors:
        stores = [mirror.source.store, *(destination.store for destination in mirror.destinations)]
        paths = [mirror.source.lock, mirror.policy, mirror.receipts.folder, mirror.receipts.sign]
        paths += [str(store) for store in stores if isinstance(store, LayoutFolder)]
        paths += [each.archive for each in mirror.destinations if not in_object_store(each.archive)]
        requested.extend(("paths", path) for path in paths)
    allowed |= {"paths"} if config.from_file else frozenset()
    refused = [(kind, request) for kind, request in requested if request and kind not in allowed]
    if refused:
        kinds = ",".join(sorted({kind for kind, _ in refused} | allowed))
        raise InvalidInput(
            f"the mirrors ask for what this machine didn't agree to: {'; '.join(text for _, text in refused[:10])}",
            hint=f"set {CONSENT}={kinds} on this machine if the author of the mirrors may decide that",
        )


def opened(config: MirrorsConfig, mirrors: Sequence[Mirror], reach: Reach, cancel: CancelToken) -> Session:
    """The session of all mirrors of a run: as many threads as the greatest of their limits says, each registry reached
    as the driver says, with what the configuration says of it over that. Raises InvalidInput for what needs the
    machine's consent, see `check_consent`."""
    concurrency = max((mirror.limits.concurrency for mirror in mirrors), default=1)
    reached = {side: reach(side, concurrency) for side in ("source", "destination")}
    allowed = agreed_to(os.environ)
    for base in reached.values():
        check_consent(config, mirrors, allowed, base.settings)
    anonymous = Fixed(ANONYMOUS, [host for host, registry in config.by_host.items() if registry.anonymous])
    named = {host for mirror in mirrors for host in mirror.registries} | set(config.by_host)
    source, destination = (
        replace(
            base,
            credentials=Credentials([anonymous, base.credentials.named(named)]),
            per_registry={
                **base.per_registry,
                **{
                    host: each.over(base.settings(host), explicit=each.explicit).with_(concurrency=concurrency + 1)
                    for host, each in config.by_host.items()
                },
            },
            named=named,
            per_bucket={
                name: bucket.over(base.object_store(name), explicit=bucket.explicit)
                for name, bucket in config.buckets.items()
            },
        )
        for base in reached.values()
    )
    return Session(source=source, destination=destination, concurrency=concurrency, cancel=cancel)


def run_mirrors(
    session: Session,
    mirrors: Sequence[Mirror],
    shared: Shared,
    *,
    on_compared: Callable[[Mirror, Comparison], None] = unheard,
    on_done: Callable[[Mirror, WorkItem, tuple[ItemOutcome, ...]], None] = unheard,
    on_report: Callable[[MirrorReport], None] = unheard,
) -> list[MirrorReport]:
    """Runs mirrors side by side in one session, each with its own report, in the order of `mirrors`; a mirror of a
    namespace is one for each of its repositories. Whatever fails is in the reports. Raises Cancelled and nothing else;
    `on_report` gets each report as soon as it is made, and then also those of mirrors that were cut short or not begun.
    The callbacks are called by one thread at a time."""
    lock = threading.Lock()
    begun: set[str] = set()

    def call(function: Callable[..., None], *arguments: object) -> None:
        with lock:
            function(*arguments)

    def run_one(mirror: Mirror) -> MirrorReport:
        session.cancel.check()
        begun.add(mirror.name)
        if shared.breaker.stopped:
            report = not_begun(mirror)
        else:
            with session.meter.part() as meter:
                report = run_mirror(
                    session,
                    mirror,
                    shared,
                    on_compared=partial(call, on_compared, mirror),
                    on_done=partial(call, on_done, mirror),
                    on_cut=partial(call, on_report),
                    meter=meter,
                )
        call(on_report, report)
        return report

    mirrors = expanded(session, mirrors)
    expect(session, mirrors)
    session.ledger.suggest(shared.facts.blob_locations())
    with PartThreads(min(len(mirrors), SIDE_BY_SIDE), thread_name_prefix="mirror") as threads:
        futures = [threads.submit(run_one, mirror) for mirror in mirrors]
        try:
            return [future.result() for future in futures]
        except BaseException:
            session.cancel.cancel()
            wait(futures)
            for mirror in mirrors:
                if mirror.name not in begun:
                    call(on_report, not_begun(mirror))
            raise
        finally:
            shared.facts.locate(session.ledger.locations())


def expect(session: Session, mirrors: Iterable[Mirror]) -> None:
    """Tells the session which repositories the mirrors will ask for."""
    mirrors = [mirror for mirror in mirrors if not mirror.source.namespace]
    session.expect("source", [mirror.source.store for mirror in mirrors if mirror.source.store is not None])
    session.expect("destination", [destination.store for mirror in mirrors for destination in mirror.destinations])


def run_mirror(
    session: Session,
    mirror: Mirror,
    shared: Shared,
    *,
    on_compared: Callable[[Comparison], None] = unheard,
    on_done: Callable[[WorkItem, tuple[ItemOutcome, ...]], None] = unheard,
    on_cut: Callable[[MirrorReport], None] = unheard,
    meter: Meter | None = None,
) -> MirrorReport:
    """Whatever fails is in the report. Raises Cancelled and nothing else; `on_cut` gets the report of what was done by
    then. `meter` counts what this mirror spends, where others share the session."""
    breaker, meter = shared.breaker, meter or session.meter
    try:
        recorder = MirrorRecorder(mirror) if mirror.receipts != MirrorReceipts() else None
        comparison = compare(session, mirror, shared)
    except Cancelled:
        on_cut(not_begun(mirror))
        raise
    except TransshipError as error:
        return of_failure(mirror, error, breaker, meter.receipt())
    on_compared(comparison)
    outcomes: list[ItemOutcome] = []

    def item_done(item: WorkItem, carried: tuple[ItemOutcome, ...]) -> None:
        outcomes.extend(carried)
        on_done(item, carried)

    try:
        every = execute(
            session,
            comparison.work,
            breaker,
            listed=comparison.listed,
            width=min(session.concurrency, mirror.limits.concurrency),
            stop_at_failure=mirror.on_failure is OnFailure.STOP,
            on_done=item_done,
        )
    except Cancelled:
        cause = TransshipError(INTERRUPTED)
        untried = [outcome_of(*pair, SKIPPED, error=cause) for pair in unaccounted(comparison.work, outcomes)]
        on_cut(made_of(mirror, comparison, (*outcomes, *untried), breaker, meter.receipt()))
        raise
    problem = ""
    try:
        if recorder is not None:
            recorder.record(session, comparison, every)
    except TransshipError as error:
        problem = str(error)
    return made_of(mirror, comparison, every, breaker, meter.receipt(), error=problem)
