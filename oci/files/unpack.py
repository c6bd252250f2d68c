"""Layers as files on disk, as imgpkg extracts them, but bottom to top and with deletions (image-spec, layer.md).

Regular files only. Folders appear as parents of files; links, devices and fifos are passed over, and take the place of
what a lower layer had there. Permissions: when a layer stored none for group and others, the owner's count for all,
then the umask applies; setuid, setgid and sticky bits and owners are dropped.

Everything is opened segment by segment from the output folder, never through a symbolic link: neither a name in a layer
nor a program that changes the folder meanwhile can lead out of it.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress

from oci.digest import Chunk
from oci.errors import CancelToken, InvalidManifest
from oci.files.decompress import DEFAULT_LIMITS, UnpackLimits, decompressed, too_large
from oci.files.tar import FOLDER, REGULAR, WITHOUT_DATA, Members
from oci.output import store_error

PATH_LIMIT = 4096
"""Bytes a path in a layer may have: what the operating system opens at once."""

DEPTH_LIMIT = 256
"""Folders inside folders."""

_DELETED = b".wh."
_OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(
    layers: Iterable[Iterator[Chunk]],
    folder: str,
    *,
    cancel: CancelToken | None = None,
    limits: UnpackLimits = DEFAULT_LIMITS,
) -> None:
    """Extracts layers, bottom first, into a folder that exists or is made; gzip, zstd and plain tar alike.

    Each layer is read to its end, so that a verifying stream has its say; what is in the folder counts only once this
    returns. `limits` bound what may come out of them. Raises InvalidManifest for a layer that is damaged or beyond the
    limits, has a name that leads out of the folder, or holds what can't be extracted; NotFound, Denied or Refused for
    what the disk doesn't do.
    """
    token = cancel or CancelToken()
    remaining = limits.max_unpacked_size

    def spent(pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Counts what comes out of all layers together."""
        nonlocal remaining
        for piece in pieces:
            remaining -= len(piece)
            if remaining < 0:
                raise too_large(limits)
            yield piece

    def checked(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            token.check()
            yield chunk

    try:
        os.makedirs(folder, exist_ok=True)
        with closing(_Tree(folder)) as tree:
            for number, chunks in enumerate(layers):
                layer = checked(chunks)
                try:
                    _add_layer(tree, Members(spent(decompressed(layer, limits))), is_bottom=number == 0)
                except InvalidManifest:
                    # A verifying stream may have to say that these were the wrong bytes altogether.
                    deque(layer, maxlen=0)
                    raise
                deque(layer, maxlen=0)
    except OSError as error:
        subject = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else ""
        raise store_error(error, store=folder, subject=subject, operation="extracting") from error


def _add_layer(tree: _Tree, members: Members, *, is_bottom: bool) -> None:
    """Adds one layer, whose deletions are meant for the layers below only; the bottom one has none below it."""
    added: set[bytes] = set()
    for member in members:
        segments = _segments(member.name)
        if any(segment.startswith(_RESERVED) for segment in segments if segment != _OPAQUE):
            continue
        if segments and segments[-1].startswith(_DELETED):
            *parents, marker = segments
            target = marker.removeprefix(_DELETED)
            if marker == _OPAQUE:
                tree.remove(parents, None, added)
            elif target in (b"", b".", b".."):
                raise InvalidManifest(f"the layer deletes {_shown(target)}")
            else:
                tree.remove(parents, target, added)
        elif member.kind == REGULAR:
            if not segments:
                raise InvalidManifest(f"the layer has a file with the name {_shown(member.name)}")
            mode = member.mode & 0o777
            # As imgpkg gives a file: it stores the owner's bits only, and means them for all users.
            mode = mode if mode & 0o077 else mode | mode >> 3 | mode >> 6
            tree.write(segments, mode, member.mtime, members.data())
            if not is_bottom:
                added.add(b"/".join(segments))
        elif member.kind in WITHOUT_DATA:
            if segments:
                tree.make_way(segments, keep_folder=member.kind == FOLDER)
        else:
            raise InvalidManifest(f"{_shown(member.name)}: unsupported tar entry type {_shown(member.kind)}")


class _Tree:
    """The output folder. The parent of the last file stays open, for the next one is mostly beside it."""

    def __init__(self, folder: str) -> None:
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent: tuple[list[bytes], int] | None = None

    def close(self) -> None:
        self._forget()
        os.close(self._root)

    def write(self, segments: list[bytes], mode: int, mtime: int, data: Iterator[bytes]) -> None:
        parent = self._open_parent(segments[:-1])
        try:
            handle = os.open(segments[-1], _FILE_FLAGS, mode, dir_fd=parent)
        except FileExistsError:
            self.make_way(segments, keep_folder=False)
            parent = self._open_parent(segments[:-1])
            handle = os.open(segments[-1], _FILE_FLAGS, mode, dir_fd=parent)
        with open(handle, "wb", buffering=0) as file:
            for piece in data:
                unwritten = memoryview(piece)
                while unwritten:
                    unwritten = unwritten[file.write(unwritten) :]
            os.utime(handle, ns=(mtime, mtime))

    def make_way(self, segments: list[bytes], *, keep_folder: bool) -> None:
        """Removes what stands where something else comes to be."""
        parent = self._find_folder(segments[:-1])
        if parent is None:
            return
        try:
            kind = os.stat(segments[-1], dir_fd=parent, follow_symlinks=False).st_mode
            if not (keep_folder and stat.S_ISDIR(kind)):
                self._forget()
                _remove_entry(parent, segments[-1], b"/".join(segments), frozenset())
        except FileNotFoundError:
            pass
        finally:
            os.close(parent)

    def remove(self, segments: list[bytes], name: bytes | None, keep: AbstractSet[bytes]) -> None:
        """Removes an entry of a folder, or all of them, with what is below except the paths in `keep`; then the folder
        and those above that have become empty."""
        self._forget()
        folder = self._find_folder(segments)
        if folder is None:
            return
        try:
            for child in [name] if name is not None else map(os.fsencode, os.listdir(folder)):
                _remove_entry(folder, child, b"/".join((*segments, child)), keep)
        finally:
            os.close(folder)
        self._prune(segments)

    def _prune(self, segments: list[bytes]) -> None:
        """Empty folders vanish, as they do when they are empty from the start."""
        for count in range(len(segments), 0, -1):
            parent = self._find_folder(segments[: count - 1])
            if parent is None:
                continue
            try:
                os.rmdir(segments[count - 1], dir_fd=parent)
            except FileNotFoundError:
                pass
            except OSError:
                return
            finally:
                os.close(parent)

    def _open_parent(self, segments: list[bytes]) -> int:
        """Makes the folders that are missing; a file that is in the way goes."""
        if self._parent is not None and self._parent[0] == segments:
            return self._parent[1]
        self._forget()
        folder = self._descend(segments, _open_or_make)
        self._parent = segments, folder
        return folder

    def _find_folder(self, segments: list[bytes]) -> int | None:
        try:
            return self._descend(segments, lambda folder, name: os.open(name, _FOLDER_FLAGS, dir_fd=folder))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _descend(self, segments: list[bytes], step: Callable[[int, bytes], int]) -> int:
        folder = os.dup(self._root)
        for segment in segments:
            try:
                below = step(folder, segment)
            finally:
                os.close(folder)
            folder = below
        return folder

    def _forget(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None


def _open_or_make(folder: int, name: bytes) -> int:
    try:
        return os.open(name, _FOLDER_FLAGS, dir_fd=folder)
    except NotADirectoryError:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    os.mkdir(name, 0o777, dir_fd=folder)
    return os.open(name, _FOLDER_FLAGS, dir_fd=folder)


def _remove_entry(parent: int, name: bytes, path: bytes, keep: AbstractSet[bytes]) -> None:
    """One level of recursion for each folder, of which there are at most DEPTH_LIMIT."""
    if path in keep:
        return
    try:
        folder = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    try:
        for child in os.listdir(folder):
            below = os.fsencode(child)
            _remove_entry(folder, below, b"/".join((path, below)), keep)
    finally:
        os.close(folder)
    # Not empty when something in it belongs to the layer that is being added.
    with suppress(OSError):
        os.rmdir(name, dir_fd=parent)


def _segments(name: bytes) -> list[bytes]:
    """Returns the path from the output folder. Layers built on Windows have backslashes between segments."""
    if b"\0" in name or len(name) > PATH_LIMIT:
        raise InvalidManifest(f"the layer has a name that can't be one of a file: {_shown(name)}")
    segments: list[bytes] = []
    for segment in name.replace(b"\\", b"/").split(b"/"):
        if segment == b"..":
            if not segments:
                raise InvalidManifest(
                    f"the layer has the name {_shown(name)}, which leads out of the output folder",
                    hint="no honest tool makes such a layer: find out where it comes from",
                )
            segments.pop()
        elif segment not in (b"", b"."):
            segments.append(segment)
    if len(segments) > DEPTH_LIMIT:
        raise InvalidManifest(f"the layer has a name more than {DEPTH_LIMIT} folders deep: {_shown(name)}")
    return segments


def _shown(name: bytes) -> str:
    return repr(name[:100].decode("utf-8", "backslashreplace"))
