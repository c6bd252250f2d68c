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
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress

from oci.cancel import CancelToken
from oci.digest import Chunk
from oci.errors import InvalidManifest
from oci.files.decompress import DEFAULT_LIMITS, UnpackLimits, decompressed, too_large
from oci.files.members import FOLDER, REGULAR, WITHOUT_DATA, Member, Members
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
    allowance = _Allowance(limits)
    try:
        os.makedirs(folder, exist_ok=True)
        tree = _Tree(folder)
        try:
            for number, chunks in enumerate(layers):
                _unpack_layer(chunks, tree, allowance, token, is_bottom=number == 0)
        finally:
            tree.close()
    except OSError as error:
        subject = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else ""
        raise store_error(error, store=folder, subject=subject, operation="extracting") from error


def _unpack_layer(
    chunks: Iterator[Chunk], tree: _Tree, allowance: _Allowance, cancel: CancelToken, *, is_bottom: bool
) -> None:
    checked = _checked(chunks, cancel)
    layer = _Layer(tree, is_bottom=is_bottom)
    try:
        members = Members(allowance.spent_by(decompressed(checked, allowance.limits)))
        for member in members:
            layer.add(member, members.data())
    except InvalidManifest:
        # A verifying stream may have to say that these were the wrong bytes altogether.
        for _ in checked:
            pass
        raise
    for _ in checked:
        pass


def _checked(chunks: Iterator[Chunk], cancel: CancelToken) -> Iterator[Chunk]:
    for chunk in chunks:
        cancel.check()
        yield chunk


class _Allowance:
    """The bytes that may still come out of the layers, all together."""

    def __init__(self, limits: UnpackLimits) -> None:
        self.limits = limits
        self._remaining = limits.max_unpacked_size

    def spent_by(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._remaining -= len(piece)
            if self._remaining < 0:
                raise too_large(self.limits)
            yield piece


class _Layer:
    """One layer being added. `own` are the files it brought: its deletions are meant for the layers below only, which
    the bottom one hasn't."""

    def __init__(self, tree: _Tree, *, is_bottom: bool) -> None:
        self._tree = tree
        self._is_bottom = is_bottom
        self._added: set[bytes] = set()

    def add(self, member: Member, data: Iterator[bytes]) -> None:
        segments = _segments(member.name)
        if any(segment.startswith(_RESERVED) for segment in segments if segment != _OPAQUE):
            return
        if segments and segments[-1].startswith(_DELETED):
            self._delete(segments)
        elif member.kind == REGULAR:
            if not segments:
                raise InvalidManifest(f"the layer has a file with the name {_shown(member.name)}")
            self._tree.write(segments, _mode(member.mode), member.mtime, data)
            if not self._is_bottom:
                self._added.add(b"/".join(segments))
        elif member.kind in WITHOUT_DATA:
            if segments:
                self._tree.make_way(segments, keep_folder=member.kind == FOLDER)
        else:
            raise InvalidManifest(f"{_shown(member.name)}: unsupported tar entry type {_shown(member.kind)}")

    def _delete(self, segments: list[bytes]) -> None:
        *parents, marker = segments
        if marker == _OPAQUE:
            self._tree.remove_below(parents, self._added)
            return
        target = marker.removeprefix(_DELETED)
        if target in (b"", b".", b".."):
            raise InvalidManifest(f"the layer deletes {_shown(target)}")
        self._tree.remove([*parents, target], self._added)


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
            if not stat.S_ISDIR(kind):
                os.unlink(segments[-1], dir_fd=parent)
            elif not keep_folder:
                self._forget()
                _remove_entry(parent, segments[-1], b"/".join(segments), frozenset())
        except FileNotFoundError:
            pass
        finally:
            os.close(parent)

    def remove(self, segments: list[bytes], keep: AbstractSet[bytes]) -> None:
        """Removes a path and all below it except the paths in `keep`, and parents that have become empty."""
        self._forget()
        parent = self._find_folder(segments[:-1])
        if parent is None:
            return
        try:
            _remove_entry(parent, segments[-1], b"/".join(segments), keep)
        finally:
            os.close(parent)
        self._prune(segments[:-1])

    def remove_below(self, segments: list[bytes], keep: AbstractSet[bytes]) -> None:
        self._forget()
        folder = self._find_folder(segments)
        if folder is None:
            return
        try:
            for name in os.listdir(folder):
                child = os.fsencode(name)
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
        folder = os.dup(self._root)
        for segment in segments:
            try:
                below = _open_or_make(folder, segment)
            finally:
                os.close(folder)
            folder = below
        self._parent = segments, folder
        return folder

    def _find_folder(self, segments: list[bytes]) -> int | None:
        folder = os.dup(self._root)
        for segment in segments:
            try:
                below = os.open(segment, _FOLDER_FLAGS, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                return None
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


def _mode(stored: int) -> int:
    """Returns what imgpkg gives a file: it stores the owner's bits only, and means them for all users."""
    mode = stored & 0o777
    return mode if mode & 0o077 else mode | mode >> 3 | mode >> 6


def _shown(name: bytes) -> str:
    return repr(name[:100].decode("utf-8", "backslashreplace"))
