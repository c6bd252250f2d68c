"""The files and folders that are given to be packed, in the order in which a layer has them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec import Struct

from oci.errors import InvalidInput

DEFAULT_EXCLUSIONS = (".git",)
BUNDLE_FOLDER = ".imgpkg"
LOCK_FILE = f"{BUNDLE_FOLDER}/images.yml"

_OWNER = 0o700
_ALL_BITS = 0o7777
_DELETION = ".wh."


class FileEntry(Struct, frozen=True):
    """`name` is the path inside the layer, `.` for a folder that was given itself; `path` is where it is read from.
    `size` in bytes and `changed`, nanoseconds since 1970, are those of the file when it was found."""

    name: str
    path: str
    mode: int
    size: int = 0
    is_folder: bool = False
    changed: int = 0


def walk(
    paths: Sequence[str], *, exclusions: Collection[str] = DEFAULT_EXCLUSIONS, preserve_permissions: bool = False
) -> tuple[FileEntry, ...]:
    """Returns every folder before its content, names in the order of their bytes, for each of `paths` in turn.

    An exclusion is a whole path inside the layer; what is below an excluded folder is left out with it. Only the
    owner's permissions are kept, and folders are 0700, unless `preserve_permissions`. A path that is a symbolic link
    is followed; inside folders anything but files and folders raises InvalidInput, as does what can't be read.
    """
    excluded = frozenset(exclusions)
    mask = _ALL_BITS if preserve_permissions else _OWNER
    return tuple(entry for path in paths for entry in _entries_of(path, excluded, mask))


def check_duplicates(entries: Iterable[FileEntry]) -> None:
    """Raises InvalidInput when two of the given paths bring a file or folder of the same name."""
    counts = Counter(entry.name for entry in entries if entry.name != ".")
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise InvalidInput(
            f"Found duplicate paths: {_some(repeated)}", hint="leave one of them out, or exclude it by name"
        )


def check_bundle(entries: Sequence[FileEntry]) -> None:
    """Raises InvalidInput unless the files are one bundle: one `.imgpkg` folder, directly in one of the given folders,
    with `images.yml` in it. What is excluded counts for nothing."""
    named = ((entry, os.path.abspath(entry.path) if entry.name == "." else entry.name) for entry in entries)
    folders = [entry for entry, name in named if entry.is_folder and os.path.basename(name) == BUNDLE_FOLDER]
    if not folders:
        raise InvalidInput(
            f"This directory is not a bundle. It is missing {LOCK_FILE}",
            hint="make that file, or push it as a plain image with -i",
        )
    if len(folders) > 1:
        raise InvalidInput(
            f"This directory contains multiple bundle definitions. Only a single instance of {LOCK_FILE} can be "
            f"provided and instead these were provided {_some([os.path.abspath(entry.path) for entry in folders])}",
            hint="exclude the others by name: --file-exclusion PATH",
        )
    if folders[0].name != BUNDLE_FOLDER:
        parents = [entry.path for entry in entries if entry.name == "."]
        raise InvalidInput(
            f"Expected '{BUNDLE_FOLDER}' directory, to be a direct child of one of: {_some(parents)}; was "
            f"{os.path.abspath(folders[0].path)}",
            hint="give the folder that holds it",
        )
    if not any(entry.name == LOCK_FILE and not entry.is_folder for entry in entries):
        raise InvalidInput(
            f"The bundle expected {LOCK_FILE} to exist, but it wasn't found in the path "
            f"{os.path.join(os.path.abspath(folders[0].path), 'images.yml')}",
            hint="make that file; it may list no images",
        )


def is_bundle(entries: Sequence[FileEntry]) -> bool:
    """Says whether the files could be pushed as a bundle."""
    try:
        check_bundle(entries)
    except InvalidInput:
        return False
    return True


def _entries_of(path: str, excluded: Collection[str], mask: int) -> Iterator[FileEntry]:
    if not path:
        raise InvalidInput("an empty path was given", hint="give a file or a folder")
    try:
        real = os.path.realpath(path, strict=True)
        status = os.stat(real)
        if not stat.S_ISDIR(status.st_mode):
            name = os.path.basename(os.path.abspath(path))
            if name not in excluded:
                yield _entry(name, real, status, mask)
            return
        yield _entry(".", path, status, mask)
        pending = [_listed(path, "", excluded)]  # no recursion: a folder may be deeper than Python's stack
        while pending:
            listed = next(pending[-1], None)
            if listed is None:
                pending.pop()
                continue
            entry = _entry(*listed, os.lstat(listed[1]), mask)
            yield entry
            if entry.is_folder:
                pending.append(_listed(entry.path, f"{entry.name}/", excluded))
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or path} can't be read: {(error.strerror or str(error)).lower()}", hint="check the path"
        ) from error


def _listed(folder: str, prefix: str, excluded: Collection[str]) -> Iterator[tuple[str, str]]:
    for base in sorted(os.listdir(folder), key=os.fsencode):
        name = prefix + base
        if name not in excluded:
            yield name, os.path.join(folder, base)


def _entry(name: str, path: str, status: os.stat_result, mask: int) -> FileEntry:
    is_folder = stat.S_ISDIR(status.st_mode)
    if not is_folder and not stat.S_ISREG(status.st_mode):
        raise InvalidInput(
            f"Expected file '{path}' to be a regular file",
            hint="links, sockets and devices can't be packed: exclude it by name",
        )
    if name.rpartition("/")[2].startswith(_DELETION):
        raise InvalidInput(
            f"{path} can't be packed: in a layer, names that start with {_DELETION} mean that a file is deleted",
            hint="rename it, or exclude it by name",
        )
    mode = _OWNER if is_folder and mask != _ALL_BITS else status.st_mode & mask
    if is_folder:
        return FileEntry(name, path, mode, is_folder=True)
    return FileEntry(name, path, mode, status.st_size, changed=status.st_mtime_ns)


def _some(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
