"""The functions of the front door: each takes text, does one thing whole, and gives one value. See `oci.__init__`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from oci.archive import source as archive_source
from oci.archive.open import open_readers
from oci.archive.options import ExportOptions, S3Options
from oci.bundle import describe as bundle_describe
from oci.bundle import image as bundle_image
from oci.bundle import tagnames
from oci.errors import CancelToken, Incomplete, InvalidInput, InvalidReference
from oci.layout import store as layout_store
from oci.meter import Meter, unheard
from oci.reference import (
    ARCHIVE_PREFIX,
    DOCKER_ARCHIVE_PREFIX,
    OCI_ARCHIVE_PREFIX,
    S3_PREFIX,
    ArchiveName,
    LayoutFolder,
    Repository,
    StoreName,
    absolute,
    named_archive,
    parse_any,
    parse_store,
)
from oci.registry.credentials.credential import Credential, Credentials, Fixed
from oci.registry.credentials.keychains import default_credentials
from oci.registry.http.origin import canonical_host
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from oci.registry.repository import Registries, RegistryRepository
from oci.relocation import planner
from oci.relocation import verify as proof
from oci.relocation.driver import Relocation, RelocationResult, Verify
from oci.relocation.plan import Plan
from oci.relocation.request import ReceiptOptions, RelocationRequest
from oci.relocation.session import Access, Session

if TYPE_CHECKING:
    from oci.bundle.pull import Pulled
    from oci.bundle.push import Pushed
    from oci.export.export import ArchiveReport
    from oci.mirror.results import MirrorReport
    from oci.prune.plan import PrunePlan, PruneReport
    from oci.prune.policy import Keep
    from oci.receipts.check import Checked


def open_session(
    *,
    login: Credential | None = None,
    hosts: Mapping[str, Credential] | None = None,
    registry: RegistryOptions | None = None,
    registries: Mapping[str, RegistryOptions] | None = None,
    s3: S3Options | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
    meter: Meter | None = None,
    cancel: CancelToken | None = None,
    named: Collection[str] | None = None,
) -> Session:
    """Opens what several calls share: connections, logins, threads, and what was learned about registries. Use it as a
    context manager, and give it to each call as `session`.

    `login` is sent to every registry and `hosts` has logins by registry; without both, the docker and podman
    configuration and the environment are asked, as the command does. Variables of the environment that name no host are
    for the registries in `named` alone; None stands for all. `registry` says how registries are reached,
    `registries` how single ones are, by host.
    """
    places = [Fixed(credential, [host]) for host, credential in (hosts or {}).items()]
    if login is not None:
        places.append(Fixed(login))
    access = Access(
        credentials=Credentials(places) if places else default_credentials(hosts=named),
        named=named,
        default=registry or RegistryOptions(),
        per_registry={canonical_host(host): options for host, options in (registries or {}).items()},
        s3=s3 or S3Options(),
    )
    return Session(source=access, destination=access, concurrency=concurrency, meter=meter, cancel=cancel)


def request_of(source: str, to: str, **options: Any) -> RelocationRequest:
    """Returns the request for a source and a destination as people write them.

    `source` is a reference to an image, an index or a bundle (`REGISTRY/REPOSITORY[:TAG][@DIGEST]`, `oci:PATH[:TAG]`),
    the path of a lock file (`.yml` or `.yaml`), or an archive: a file, `s3://BUCKET/KEY`, or `archive:A|B` for its
    volumes. `to` is a repository, `oci:PATH` or `archive:LOCATION`; a tag after it is the tag to give. Both may also be
    `docker-archive:PATH[:NAME]` or `oci-archive:PATH[:TAG]`. `options` are those of RelocationRequest. Raises
    InvalidReference, InvalidInput.
    """
    fields: dict[str, Any]
    if (named := named_archive(source)) is not None:
        fields = {"archive": named[:1]}
        options["only"] = (*options.get("only", ()), *filter(None, named[1:]))
    elif source.startswith(ARCHIVE_PREFIX):
        name = parse_store(source)
        fields = {"archive": name.locations if isinstance(name, ArchiveName) else ()}
    elif source.startswith(S3_PREFIX):
        fields = {"archive": (source,)}
    elif os.path.isfile(source):
        fields = {"lock": source} if source.endswith((".yml", ".yaml")) else {"archive": (source,)}
    else:
        fields = {"image": source, "image_may_be_bundle": not options.get("shallow", False)}
    if (place := named_archive(to)) is not None:
        to = str(ArchiveName.of(place[0]))
        options["tags"] = (*options.get("tags", ()), *filter(None, place[1:]))
    elif to.startswith(S3_PREFIX):
        to = f"{ARCHIVE_PREFIX}{to}"
    try:
        parse_store(to)
    except InvalidReference:
        reference = parse_any(to)
        if reference.digest is not None:
            raise
        to = str(reference.repository)
        options.setdefault("tags", (reference.tag,))
    return RelocationRequest(**fields, to=to, **options)


def plan(source: str, to: str, *, session: Session | None = None, **options: Any) -> Plan:
    """Says what `copy` would do, and writes nothing."""
    request = request_of(source, to, **options)
    with _shared(session, *_stores(request)) as shared:
        return planner.make_plan(shared, request)


def copy(
    source: str,
    to: str,
    *,
    verify: str = "none",
    session: Session | None = None,
    export: ExportOptions | None = None,
    receipts: ReceiptOptions | None = None,
    **options: Any,
) -> RelocationResult | ArchiveReport:
    """Copies an image, an index, a bundle with what it lists, what a lock lists, or an archive, to a repository, a
    layout folder or an archive, byte for byte, and names it last of all.

    `verify` is "none", "head" or "deep"; with it the names move after the proof, and an archive is read where it is.
    `export` says how an archive is to be, `receipts` what is left in writing, and who signs it. Raises Incomplete,
    having moved no name, when a part failed.
    """
    docker = to.startswith(DOCKER_ARCHIVE_PREFIX)
    path, name = (named_archive(to) if docker else None) or ("", "")
    if docker and Verify(verify) is not Verify.NONE:
        raise InvalidInput("docker-archive: can't be written with verify", hint="leave it out, or use archive:PATH")
    request = request_of(source, f"{ARCHIVE_PREFIX}{path}" if docker else to, **options)
    if to.startswith(OCI_ARCHIVE_PREFIX):
        export = (export or ExportOptions()).with_(format="oci-layout")
    recorder = None
    if receipts:
        from oci.receipts.record import Recorder  # noqa: PLC0415 - for receipts only

        recorder = Recorder(receipts, request, verify=Verify(verify))
    with _shared(session, *_stores(request)) as shared:
        if isinstance(request.destination, ArchiveName):
            from oci.export import export as exporting  # noqa: PLC0415 - a copy between registries writes no archive
            from oci.export.planner import plan_archive  # noqa: PLC0415

            plan, place = planner.make_plan(shared, request), request.destination.location
            if docker:
                images = exporting.docker_images(shared, plan, name)
                report = exporting.write_docker(shared, plan, place, images)
            else:
                report = exporting.write_archive(shared, plan_archive(shared, request, plan, export))
            proven = exporting.prove_written(shared, report.locations, Verify(verify))
            exporting.seal_archive(
                shared, plan, report.locations, place, sha256sums=False, recorder=recorder, verification=proven
            )
            return report
        check = recorder.check if recorder is not None else unheard
        result = Relocation(shared, request, verify=Verify(verify)).run(on_plan=check)
        if recorder is not None:
            recorder.record(shared, result)
        return result


def verify(name: str, *, deep: bool = False, session: Session | None = None) -> proof.Verification:
    """Proves that a tag, a digest, or all tags of a repository or layout folder are whole: asks for every manifest and
    blob, or with `deep` reads and hashes every byte. What is wrong is in `problems`."""
    identifiers: tuple[str, ...] = ()
    try:
        store = parse_store(name)
    except InvalidReference:
        reference = parse_any(name)
        store, identifiers = reference.repository, (reference.identifier,)
    with _shared(session, store) as shared:
        return proof.verify_names(shared, store, identifiers, deep=deep)


def verify_receipt(
    name: str, *keys: str, at: Sequence[str] = (), deep: bool = False, session: Session | None = None
) -> Checked:
    """Proves that one of the public keys, which are files, has signed a receipt, and compares it with the destination
    as it is now. `name` is the file of a receipt, or an image that one is attached to; `at` says where the destination
    is now, if it has moved. What differs is in `differences`. Raises NotTrusted where no key has signed it."""
    from oci.receipts.check import check_receipt, find_receipt  # noqa: PLC0415 - for receipts only
    from oci.signatures.keys import read_key_file  # noqa: PLC0415

    named = [at_place for at_place in at if not at_place.startswith((S3_PREFIX, "/"))]
    stores = [*map(parse_store, named), *([] if os.path.exists(name) else [parse_any(name).repository])]
    with _shared(session, *stores) as shared:
        receipt = find_receipt(shared, name, [read_key_file(path) for path in keys])
        return check_receipt(shared, receipt, at=at, deep=deep)


def push(to: str, *files: str, bundle: bool = False, session: Session | None = None, **options: Any) -> Pushed:
    """Pushes files and folders as one image, or with `bundle` as a bundle, under the tag of `to`. `options` are those
    of PushRequest."""
    from oci.bundle.push import PushRequest, entries_of  # noqa: PLC0415
    from oci.bundle.push import push as push_files  # noqa: PLC0415

    fields: dict[str, Any] = {"bundle" if bundle else "image": to, "files": files, **options}
    request = PushRequest(**fields)
    entries = entries_of(request)
    with _shared(session, request.destination.repository) as shared:
        return push_files(shared.destination(request.destination.repository), request, entries, cancel=shared.cancel)


def pull(name: str, folder: str, *, session: Session | None = None, **options: Any) -> Pulled:
    """Pulls the files of an image or a bundle into a folder that is new or empty. `options` are those of
    PullRequest."""
    from oci.bundle.pull import PullRequest  # noqa: PLC0415
    from oci.bundle.pull import pull as pull_files  # noqa: PLC0415

    reference = parse_any(name)
    with _shared(session, reference.repository) as shared:
        source = shared.source(reference.repository)
        manifest = source.get_manifest(reference.identifier)
        is_bundle = bundle_image.is_bundle(source, manifest)
        fields: dict[str, Any] = {"bundle" if is_bundle else "image": name, **options}
        request = PullRequest(**fields)
        os.makedirs(folder, exist_ok=True)
        return pull_files(shared.source, request, folder, shared.workers, line=unheard, cancel=shared.cancel)


def describe(bundle: str, *, session: Session | None = None) -> bundle_describe.DescribedBundle:
    """Says what a bundle holds: its images and nested bundles, where each is, where it came from, its signatures."""
    reference = parse_any(bundle)
    with _shared(session, reference.repository) as shared:
        return bundle_describe.describe(shared.source, reference, shared.workers)


def tags(repository: str, *, internal: bool = False, session: Session | None = None) -> tuple[str, ...]:
    """Returns the tags of a repository, a layout folder or an archive, sorted; `internal` shows those that tools keep
    for themselves, too."""
    name = parse_store(repository)
    with _shared(session, name) as shared:
        listed = tagnames.list_tags(shared.source(name), internal=internal)
    return tuple(tag.name for tag in listed)


def run_mirrors(path: str, *names: str, on_report: Callable[[MirrorReport], None] = unheard) -> list[MirrorReport]:
    """Copies what is missing or changed at the destinations of the mirrors in a file, or of the named ones. Raises
    Incomplete when a mirror failed; `on_report` gets the report of each."""
    from oci.mirror.reader import read_config  # noqa: PLC0415
    from oci.mirror.run import opened  # noqa: PLC0415
    from oci.mirror.run import run_mirrors as run_side_by_side  # noqa: PLC0415
    from oci.mirror.run_state import Shared  # noqa: PLC0415

    config = read_config(path)
    access = Access(credentials=default_credentials())
    mirrors = config.chosen(names)
    if not mirrors:
        return []
    with opened(config, mirrors, lambda _side, _threads: access, CancelToken()) as session:
        reports = run_side_by_side(session, mirrors, Shared(), on_report=on_report)
    failed = [report.mirror for report in reports if not report.succeeded]
    if failed:
        raise Incomplete(f"{len(failed)} of {len(reports)} mirrors failed: {', '.join(failed)}")
    return reports


def plan_prune(
    repository: str, keep: Keep, *, grace: timedelta = timedelta(0), session: Session | None = None
) -> PrunePlan:
    """Says what of a repository `keep` doesn't want, and that nothing kept needs. Deletes nothing."""
    from oci.prune.planner import make_prune_plan  # noqa: PLC0415

    name = parse_store(repository)
    with _shared(session, name) as shared:
        return make_prune_plan(shared, name, keep, grace=grace)


def execute_prune(plan: PrunePlan, *, session: Session | None = None) -> PruneReport:
    """Deletes what the plan says and a new look at the repository says, too."""
    from oci.prune.execute import execute  # noqa: PLC0415

    with _shared(session, plan.store) as shared:
        return execute(shared, plan)


class Registry:
    """The repositories of one registry, as stores with manifests, blobs, tags and referrers. A context manager."""

    def __init__(self, host: str, *, login: Credential | None = None, options: RegistryOptions | None = None) -> None:
        self.host = host
        self._registries = Registries(
            side="",
            settings=lambda _: options or RegistryOptions(),
            credentials=Credentials([Fixed(login, [host])]) if login else default_credentials(hosts=[host]),
            meter=Meter(),
            cancel=CancelToken(),
        )

    def repository(self, path: str) -> RegistryRepository:
        """Raises InvalidReference for a path that is no repository's."""
        return self._registries.repository(Repository.parse(f"{self.host}/{path}"))

    def close(self) -> None:
        self._registries.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Layout(layout_store.LayoutStore):
    """An OCI image-layout folder as a store."""

    def __init__(self, path: str) -> None:
        super().__init__(LayoutFolder(absolute(path)), side="", meter=Meter(), cancel=CancelToken())


class Archive(archive_source.ArchiveSource):
    """An archive, or the volumes of one, as a store to read from. A context manager."""

    def __init__(self, *locations: str, s3: S3Options | None = None) -> None:
        name, cancel = ArchiveName.of(*locations), CancelToken()
        readers = open_readers(name, lambda _: s3 or S3Options(), side="source", cancel=cancel)
        super().__init__(name, readers, side="source", meter=Meter(), cancel=cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def _shared(session: Session | None, *stores: StoreName) -> Iterator[Session]:
    """The given session, which stays open, or a session of this call, whose logins are for the registries of these
    stores."""
    if session is not None:
        yield session
        return
    with open_session(named={store.registry for store in stores if store.registry}) as opened:
        yield opened


def _stores(request: RelocationRequest) -> tuple[StoreName, ...]:
    """The stores that the caller has named."""
    source = (request.reference.repository,) if request.bundle or request.image else ()
    return (*source, request.destination)
