"""index.json of an image layout: the names, and which files are in use by them. Several processes may write it at
once; none loses another's entry."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from oci.descriptor import OCI_INDEX, SCHEMA1_TYPES, Descriptor, as_list, as_object, as_text, json_object, parse_json
from oci.digest import Digest, is_digest, parse_digest
from oci.errors import InvalidManifest, NotFound, Refused
from oci.manifest import MANIFEST_LIMIT, Manifest, parse_manifest
from oci.output import BY_UMASK, lock_file, open_regular, replace_file
from oci.reference import LayoutFolder, is_tag

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_LIMIT = 64 << 20
"""Bytes of an index.json that is read: a layout that is a mirror's home may have many thousand entries."""

_LAYOUT_FILE_LIMIT = 4096
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})

_DIGEST_TEXT = re.compile(rb"(?<![\w+.-])[a-z0-9]{2,16}:[0-9a-f]{64,128}(?![\w])")

Entry: TypeAlias = dict[str, Any]


class LayoutIndex:
    """Raises InvalidManifest for a file that breaks its format, and OSError as the operating system gives it. Reads
    are cached until the file changes."""

    def __init__(self, name: LayoutFolder, *, side: str) -> None:
        self._name = name
        self._side = side
        self._where = f"{side} {name}: ".lstrip()
        self._file = os.path.join(name.path, "index.json")
        self._marker = os.path.join(name.path, "oci-layout")
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._mark: tuple[int, int, int] | None = None
        """Of the file that the entries were read from."""
        self._entries: tuple[Descriptor, ...] = ()
        self._by_digest: dict[Digest, Descriptor] = {}
        self._exists = False
        self._prepared = False

    def exists(self) -> bool:
        """Says whether both files of a layout are there; one that was there is taken to stay."""
        if not self._exists:
            try:
                os.stat(self._file)
                self._check_version()
            except (FileNotFoundError, NotADirectoryError):
                return False
            self._exists = True
        return True

    def prepare(self) -> None:
        """Makes the folder a layout, if it isn't one yet."""
        if self._prepared:
            return
        os.makedirs(self._name.path, exist_ok=True)
        if not os.path.exists(self._marker):
            replace_file(self._marker, LAYOUT_FILE, BY_UMASK)
        with self._locked():
            if not os.path.exists(self._file):
                replace_file(self._file, _render({}, []), BY_UMASK)
        self._check_version()
        self._prepared = True

    def entries(self) -> tuple[Descriptor, ...]:
        """Empty where there is no layout yet."""
        return self._current()[0]

    def entry(self, digest: Digest) -> Descriptor | None:
        return self._current()[1].get(digest)

    def tags(self) -> set[str]:
        """Returns every name that `find` would find, as far as it can be a tag."""
        entries = self.entries()
        # What follows the last colon; `localhost:5000/web` has no tag and gives no tag's name.
        names = {name.rpartition(":")[2] for entry in entries for name in _names(entry.annotations)}
        return {name for name in names if is_tag(name)} | ({"latest"} if _is_nameless(entries) else set())

    def find(self, tag: str) -> Descriptor | None:
        """By the exact name; else by the tag of a full name, as other tools write them; else the only entry there is,
        which is `latest` when it has no name at all. Raises Refused when the name is that of several manifests."""
        entries = self.entries()
        matching = (
            [entry for entry in entries if entry.annotations.get(REF_NAME) == tag]
            or [entry for entry in entries if _is_named(entry.annotations, tag)]
            or (list(entries) if tag == "latest" and _is_nameless(entries) else [])
        )
        if len({entry.digest for entry in matching}) > 1:
            raise Refused(
                f"index.json gives this name to {len(matching)} manifests",
                side=self._side,
                store=str(self._name),
                subject=tag,
                operation="looking for the manifest",
                hint="name the one that is meant by its digest",
            )
        return matching[0] if matching else None

    def put(self, descriptor: Descriptor, tag: str, *, by_digest: bool) -> None:
        """Lists a manifest under `tag`, which it takes from whatever had it, and `by_digest` without a name as well:
        so the file doesn't depend on the order in which that came."""
        plain = descriptor.to_dict()

        def change(entries: list[Entry]) -> list[Entry]:
            others = [entry for entry in entries if not tag or _annotations(entry).get(REF_NAME) != tag]
            if tag:
                others.append({**plain, "annotations": {REF_NAME: tag}})
            if by_digest and not any(
                entry.get("digest") == descriptor.digest and not _names(_annotations(entry)) for entry in others
            ):
                others.append(plain)
            return others

        self._change(change)

    def remove_tag(self, tag: str) -> bool:
        """Removes every entry that has the name, and says whether there was one."""
        return self._change(lambda entries: [entry for entry in entries if not _is_named(_annotations(entry), tag)])

    def remove_digest(self, digest: Digest) -> bool:
        return self._change(lambda entries: [entry for entry in entries if entry.get("digest") != digest])

    def _current(self) -> tuple[tuple[Descriptor, ...], dict[Digest, Descriptor]]:
        with self._lock:
            try:
                status = os.stat(self._file)
            except (FileNotFoundError, NotADirectoryError):
                return (), {}
            mark = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._mark != mark:
                _, listed = self._read()
                with self._named():
                    entries = tuple(Descriptor.from_dict(entry, f"manifests[{at}]") for at, entry in enumerate(listed))
                self._mark, self._entries = mark, entries
                self._by_digest = {entry.digest: entry for entry in reversed(entries)}
            return self._entries, self._by_digest

    def _change(self, change: Callable[[list[Entry]], list[Entry]]) -> bool:
        """Reads, changes and replaces the file under a lock; says whether anything changed."""
        self.prepare()
        with self._locked():
            body, before = self._read()
            after = change(before)
            if after == before:
                return False
            replace_file(self._file, _render(body, after), BY_UMASK)
        with self._lock:
            self._mark = None
        return True

    def _read(self) -> tuple[Entry, list[Entry]]:
        """Returns the whole file, and the list in it."""
        with os.fdopen(open_regular(self._file), "rb") as file:
            raw = file.read(INDEX_LIMIT + 1)
        if len(raw) > INDEX_LIMIT:
            raise InvalidManifest(f"{self._where}index.json has more than {INDEX_LIMIT} bytes")
        with self._named():
            body = json_object(raw, "index.json")
            return body, [as_object(entry, "manifests[]") for entry in as_list(body.get("manifests"), "manifests")]

    def _check_version(self) -> None:
        with os.fdopen(open_regular(self._marker), "rb") as file:
            raw = file.read(_LAYOUT_FILE_LIMIT)
        with self._named():
            version = as_text(json_object(raw, "oci-layout").get("imageLayoutVersion"), "imageLayoutVersion")
        if version.partition(".")[0] != "1":
            raise InvalidManifest(
                f"{self._where}oci-layout: version {version[:40]!r} of image layouts isn't known",
                hint=f"the file oci-layout is expected to hold {LAYOUT_FILE.decode()}",
            )

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Says which layout it is that breaks the format."""
        try:
            yield
        except InvalidManifest as error:
            raise InvalidManifest(f"{self._where}{error.message}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer among all threads and processes. The lock is a file of its own: index.json is replaced."""
        with self._writing:
            lock = self._open_lock(f"{self._file}.lock")
            try:
                lock_file(lock, f"{self._file}.lock")
                yield
            finally:
                os.close(lock)

    def _open_lock(self, path: str) -> int:
        """Opens the lock, perhaps another user's: flock(2) asks for no right but to open, and Linux refuses O_CREAT for
        a file of somebody else in a folder of everybody (sysctl fs.protected_regular). Raises OSError."""
        refusal = 0
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDWR, os.O_RDONLY):
            try:
                lock = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, BY_UMASK)
            except OSError as error:
                if error.errno in _NO_FILE:
                    break
                if error.errno not in _NOT_OURS:
                    raise
                refusal = error.errno or 0
                continue
            if stat.S_ISREG(os.fstat(lock).st_mode):
                return lock
            os.close(lock)
            break
        else:
            raise OSError(refusal, f"the lock {path} can't be opened: {os.strerror(refusal).lower()}", path)
        raise OSError(errno.EINVAL, f"the lock {path} is no regular file: remove it", path)


def _is_nameless(entries: tuple[Descriptor, ...]) -> bool:
    return len(entries) == 1 and not _names(entries[0].annotations)


def _is_named(annotations: Mapping[str, Any], tag: str) -> bool:
    return any(name == tag or name.endswith(f":{tag}") for name in _names(annotations))


def _names(annotations: Mapping[str, Any]) -> tuple[str, ...]:
    """`1.0`, or the full `docker.io/library/web:1.0` that Docker and containerd write."""
    names = (annotations.get(REF_NAME), annotations.get(CONTAINERD_NAME))
    return tuple(name for name in names if isinstance(name, str) and name)


def _annotations(entry: Entry) -> Mapping[str, Any]:
    annotations = entry.get("annotations")
    return annotations if isinstance(annotations, dict) else {}


def _render(body: Entry, entries: list[Entry]) -> bytes:
    """In one order, so that the same content gives the same file; what else the file says is kept."""
    lines = sorted((_names(_annotations(entry)), str(entry.get("digest")), json.dumps(entry)) for entry in entries)
    head = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX} | {key: body[key] for key in body if key != "manifests"}
    )
    listed = ",\n".join(line[-1] for line in lines)
    return f'{head[:-1]}, "manifests": [\n{listed}\n]}}\n'.encode()


def used_digests(sizes: Mapping[Digest, int], read: Callable[[Digest], bytes], listed: Iterable[Digest]) -> set[Digest]:
    """Returns the manifests among files of these sizes, and the digests that they list.

    What index.json or an index lists and `parse_manifest` doesn't know (Docker's schema 1, the artifact manifest of
    image-spec's release candidates, a type to come) is in use with every digest that is written in it.
    """
    used: set[Digest] = set()
    pending = list(listed)
    manifests: dict[Digest, Manifest] = {}
    for digest, size in sizes.items():
        if size > MANIFEST_LIMIT:
            continue
        with suppress(InvalidManifest, NotFound):
            manifest = parse_manifest(read(digest))
            manifests[digest] = manifest
            used.update((digest, *(blob.digest for blob in (*manifest.blobs, *manifest.children))))
            pending.extend(child.digest for child in manifest.children)
    strange: set[Digest] = set()
    while pending:
        digest = pending.pop()
        if digest not in sizes or digest in manifests or digest in strange:
            continue
        strange.add(digest)
        if sizes[digest] <= MANIFEST_LIMIT:
            texts = {text.decode() for text in _DIGEST_TEXT.findall(read(digest))}
            pending.extend(parse_digest(text) for text in texts if is_digest(text))
    return used | strange


def described(digest: Digest, listed_type: str, raw: bytes) -> Descriptor | None:
    """Returns the descriptor of a manifest of a kind that `parse_manifest` doesn't know. Its media type is that of
    index.json, or that in its bytes; None where neither has any."""
    try:
        body = as_object(parse_json(raw), "manifest")
    except (ValueError, InvalidManifest):
        body = {}
    written = body.get("mediaType")
    by_version = SCHEMA1_TYPES[0] if body.get("schemaVersion") == 1 else ""
    media_type = listed_type or (written if isinstance(written, str) else by_version)
    return Descriptor(media_type, digest, len(raw)) if media_type else None
