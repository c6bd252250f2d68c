"""Random repositories: what goes and what stays is exactly what an independent count of references says, and a run that
breaks off anywhere leaves no name over something incomplete."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from oci.prune.execute import execute
from oci.prune.policy import Keep
from oci.reference import parse_store
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.content import Content, artifact, bundle, image, index
from tests.support.pruning import NOW, carried_out, planned
from tests.support.relocating import session

_numbers = itertools.count()


class Graph:
    """Contents and how they hang together, by digest."""

    def __init__(self) -> None:
        self.contents: dict[str, Content] = {}
        self.below: dict[str, set[str]] = {}
        self.subject: dict[str, str] = {}
        self.tags: dict[str, str] = {}

    def __repr__(self) -> str:
        short = {digest: f"{number}" for number, digest in enumerate(self.contents)}
        below = {short[digest]: [short[one] for one in found] for digest, found in self.below.items() if found}
        subject = {short[digest]: short[one] for digest, one in self.subject.items()}
        tags = {tag[:14]: short[digest] for tag, digest in self.tags.items()}
        return f"Graph({short}, {below=}, {subject=}, {tags=})"

    def add(self, content: Content, below: set[str], subject: str = "") -> None:
        self.contents[content.digest] = content
        self.below[content.digest] = below
        if subject:
            self.subject[content.digest] = subject

    def referrers(self, digest: str) -> set[str]:
        return {one for one, subject in self.subject.items() if subject == digest}

    def attached(self, digest: str) -> set[str]:
        return {shown for tag, shown in self.tags.items() if digest.partition(":")[2] in tag}

    def needed(self, roots: set[str]) -> set[str]:
        found: set[str] = set()
        left = set(roots)
        while left:
            one = left.pop()
            found.add(one)
            subject = {self.subject[one]} if one in self.subject else set()
            left |= self.below.get(one, set()) | subject | self.referrers(one) | self.attached(one)
            left -= found
        return found

    def known(self, locks: set[str]) -> set[str]:
        """What a registry can be made to tell of."""
        left = set(self.tags.values()) | locks
        left |= {digest for digest in self.contents if any(digest.partition(":")[2] in tag for tag in self.tags)}
        found: set[str] = set()
        while left:
            one = left.pop()
            found.add(one)
            left |= (self.below.get(one, set()) | self.referrers(one)) - found
        return found & self.contents.keys()

    def whole(self, left: set[str]) -> bool:
        """Is all there that is below what still has a name?"""
        pending = {digest for tag, digest in self.tags.items() if digest in left}
        while pending:
            one = pending.pop()
            if one not in left:
                return False
            pending |= self.below[one]
        return True


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, set[str], set[str]]:
    """A repository, the tags that are kept, and the digests that a lock keeps."""
    graph = Graph()
    made: list[Content] = []
    for number in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["image", "index", "bundle", "referrer", "referring index"])) if made else "image"
        some = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True)) if made else []
        if kind == "image":
            content, below, subject = image(number), set(), ""
        elif kind == "index":
            content, below, subject = index(some), {one.digest for one in some}, ""
        elif kind == "bundle":
            content = bundle([f"far.example/shop/x@{one.digest}" for one in some])
            below, subject = {one.digest for one in some}, ""
        elif kind == "referrer":
            content, below, subject = artifact(number, subject=some[0]), set(), some[0].digest
        else:
            plain = index(some[1:] or some)
            body = json.loads(plain.raw) | {"subject": some[0].descriptor()}
            content = Content(plain.media_type, json.dumps(body).encode(), (), plain.children)
            below, subject = {one.digest for one in plain.children}, some[0].digest
        if content.digest not in graph.contents:
            graph.add(content, below, subject)
            made.append(content)
    some_content = st.sampled_from(made)
    for number, content in enumerate(draw(st.lists(some_content, min_size=1, max_size=6))):
        graph.tags[f"t{number}"] = content.digest
    for content in draw(st.lists(some_content, max_size=3, unique=True)):
        graph.tags[f"sha256-{content.hex}.imgpkg"] = content.digest
    for content, shown in draw(st.lists(st.tuples(some_content, some_content), max_size=3)):
        graph.tags[f"sha256-{content.hex}{draw(st.sampled_from(['.sig', '.att', '']))}"] = shown.digest
    plain_tags = sorted(tag for tag in graph.tags if tag.startswith("t"))
    kept = set(draw(st.lists(st.sampled_from(plain_tags), max_size=2)))
    locks = {one.digest for one in draw(st.lists(some_content, max_size=1))}
    return graph, kept, locks


class Place:
    """The graph in a repository of its own, put there without HTTP."""

    def __init__(self, server: StrictRegistry, graph: Graph) -> None:
        self.path = f"graph{next(_numbers)}/shop"
        self.name = f"{server.host}/{self.path}"
        self._repository = server.store.repository(self.path)
        for content in graph.contents.values():
            for blob in content.blobs:
                server.store.add_blob(self.path, blob.data)
            self._repository.manifests[content.digest] = (content.media_type, content.raw)
        self._repository.tags.update(graph.tags)

    @property
    def digests(self) -> set[str]:
        return set(self._repository.manifests)

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._repository.tags)


@pytest.fixture(scope="module", params=[Features(), Features(tag_delete=False)], ids=["strict", "no tag deletion"])
def server(request: pytest.FixtureRequest) -> Iterator[StrictRegistry]:
    with StrictRegistry(request.param) as one:
        yield one


def policy(kept: set[str], locks: set[str]) -> Keep:
    return Keep(tags=tuple(kept), digests=tuple(locks), nothing=True)  # type: ignore[arg-type]


few = settings(
    max_examples=max(15, settings().max_examples // 5),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@few
@given(graphs())
def test_nothing_reachable_goes_and_all_else_that_is_known_does(
    server: StrictRegistry, made: tuple[Graph, set[str], set[str]]
) -> None:
    graph, kept, locks = made
    place = Place(server, graph)
    keep = policy(kept, locks)
    needed = graph.needed({graph.tags[tag] for tag in kept} | locks)

    plan = planned(place.name, **{name: getattr(keep, name) for name in ("tags", "digests", "nothing")})
    report = carried_out(plan)

    assert place.digests == graph.contents.keys() - (graph.known(locks) - needed)
    assert not report.failed
    wanted = {tag: digest for tag, digest in graph.tags.items() if tag in kept or attached_to_any(tag, needed)}
    left = place.tags
    assert wanted.items() <= left.items()
    extra = left.keys() - wanted.keys()
    assert extra == {one.subject for one in report.refused}
    assert not (extra and server.features.tag_delete)
    assert planned(place.name, tags=keep.tags, digests=keep.digests, nothing=True).due_manifests == ()


def attached_to_any(tag: str, digests: set[str]) -> bool:
    return any(digest.partition(":")[2] in tag for digest in digests)


class PulledPlug(BaseException):
    pass


@few
@given(graphs(), st.integers(1, 6))
def test_a_run_that_breaks_off_leaves_names_whole_and_the_next_one_ends_it(
    server: StrictRegistry, made: tuple[Graph, set[str], set[str]], after: int
) -> None:
    graph, kept, locks = made
    place, undisturbed = Place(server, graph), Place(server, graph)
    plan = planned(place.name, tags=tuple(kept), digests=tuple(locks), nothing=True)
    left = after

    def pull(subject: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise PulledPlug

    with session(workers=1) as one:
        try:
            execute(one, plan, now=NOW, on_deleted=pull)
        except PulledPlug:
            assert graph.whole(place.digests) or not graph.whole(set(graph.contents))

    carried_out(plan)
    carried_out(planned(undisturbed.name, tags=tuple(kept), digests=tuple(locks), nothing=True))
    assert (place.digests, place.tags) == (undisturbed.digests, undisturbed.tags)


@few
@given(graphs())
def test_a_layout_folder_is_pruned_alike(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[Graph, set[str], set[str]]
) -> None:
    graph, kept, locks = made
    folder = tmp_path_factory.mktemp("layout")
    where = f"oci:{folder}"
    write_layout(folder, graph)
    needed = graph.needed({graph.tags[tag] for tag in kept} | locks)

    report = carried_out(planned(where, tags=tuple(kept), digests=tuple(locks), nothing=True))

    assert (report.failed, report.refused) == ((), ())
    files = {f"sha256:{path.name}" for path in (folder / "blobs" / "sha256").iterdir()}
    known = graph.known(locks | graph.subject.keys())
    assert files & graph.contents.keys() == graph.contents.keys() - (known - needed)
    used = {blob_digest(blob) for digest in files & graph.contents.keys() for blob in graph.contents[digest].blobs}
    assert files - graph.contents.keys() == used
    with session() as one:
        tags = set(one.source(parse_store(where)).tags())
    assert tags - {"latest"} == {tag for tag in graph.tags if tag in kept or attached_to_any(tag, needed)}


def blob_digest(blob: object) -> str:
    return str(blob.descriptor()["digest"])  # type: ignore[attr-defined]


def write_layout(folder: Path, graph: Graph) -> None:
    """As a relocation leaves one: tags and referrers in index.json, everything else by its digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    for content in graph.contents.values():
        (blobs / content.hex).write_bytes(content.raw)
        for blob in content.blobs:
            (blobs / blob_digest(blob).removeprefix("sha256:")).write_bytes(blob.data)
    entries = [
        graph.contents[digest].descriptor(annotations={"org.opencontainers.image.ref.name": tag})
        for tag, digest in graph.tags.items()
    ]
    entries += [graph.contents[digest].descriptor() for digest in graph.subject]
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
