"""The folder that files are pulled into: made beside the old one, then swapped with it as a whole.

So a pull that fails leaves what was there. What was there is deleted in the end, and therefore only when it is empty,
holds a `.imgpkg` folder (a bundle, whichever tool pulled it), or was made here before: that is remembered in an
extended attribute of the folder itself, not in a file that would be packed with the others one day. Where the file
system has no extended attributes it is forgotten.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from oci.errors import Denied, InvalidInput, StoreError
from oci.files.pack import BUNDLE_FOLDER
from oci.output import store_error

ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which a half-made folder counts as abandoned."""

NEVER_REPLACED = frozenset({"/", ".", ".."})
"""Refused whatever is there: imgpkg's list."""

_MARK = "user.transship.output"
_SUFFIX = "partial"
_AT_FDCWD = -100
_EXCHANGE = 2


@contextmanager
def output_folder(path: str, *, replace: bool = False) -> Iterator[str]:
    """Gives a new, empty folder beside `path` to fill, which takes its place when the block ends without an error.

    Raises as `check_folder` does. `path` and its old content change at one moment, or not at all.
    """
    target = check_folder(path, replace=replace)
    parent, name = os.path.split(target)
    new = os.path.join(parent, f".{name}.{secrets.token_hex(8)}.{_SUFFIX}")
    try:
        os.makedirs(parent, exist_ok=True)
        _sweep(parent, name)
        os.mkdir(new)
    except OSError as error:
        raise store_error(error, store=target, operation="making the output folder", named=True) from error
    try:
        yield new
        # Looked at again: another program may have written there meanwhile.
        check_folder(path, replace=replace)
        _mark(new)
        try:
            _swap(new, target)
        except OSError as error:
            raise store_error(error, store=target, operation="replacing the output folder") from error
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, StoreError) and error.store.startswith(new):
            error.store = (target + error.store.removeprefix(new)).rstrip("/")  # the name that the person knows
        raise
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(new)  # what was there before
    except OSError as error:
        raise Denied(
            f"the new files are in place, but the old ones couldn't be removed from {new}",
            store=target,
            operation="replacing the output folder",
            hint="remove them",
        ) from error


def check_folder(path: str, *, replace: bool = False) -> str:
    """Returns the absolute path, when files may be pulled there; `replace` allows to delete a folder that no pull made.

    Raises InvalidInput for a path that must not or can't be replaced: the root, the working folder, the home folder
    and what is above them, a mount point, a link, a file, and a folder whose content wasn't pulled.
    """
    if not path:
        raise InvalidInput("the output folder must not be empty", hint="name a folder")
    try:
        parent, name = os.path.split(os.path.abspath(path))
        target = os.path.join(os.path.realpath(parent), name)  # the folder itself may be a link
        for path_in_use, description in (
            (os.getcwd(), "the working folder"),
            (os.path.expanduser("~"), "the home folder"),
        ):
            if f"{os.path.realpath(path_in_use)}/".startswith(f"{target.rstrip('/')}/"):
                raise _disallowed(path, f"it is {description}, or above it", "name a folder of its own")
        if not os.path.lexists(target):
            return target
        if os.path.islink(target):
            raise _disallowed(path, "it is a symbolic link", "name the folder itself")
        if not os.path.isdir(target):
            raise _disallowed(path, "it is not a folder", "name another one, or remove it first")
        if os.path.ismount(target):
            raise _disallowed(path, "it is a mount point, which can't be replaced", "name a folder inside it")
        if not replace:
            with os.scandir(target) as entries:
                names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
            if names and not names.get(BUNDLE_FOLDER, False) and not _is_marked(target):
                raise _disallowed(
                    path,
                    "it has files that weren't pulled, and they would be deleted",
                    "remove the folder first, or name another one",
                )
    except OSError as error:
        raise store_error(error, store=path, operation="looking at the output folder") from error
    return target


def _disallowed(path: str, why: str, hint: str) -> InvalidInput:
    return InvalidInput(f"Disallowed output directory (trying to avoid accidental deletion)\n{path}: {why}", hint=hint)


def _mark(folder: str) -> None:
    with suppress(OSError, AttributeError):  # Python has extended attributes on Linux only
        os.setxattr(folder, _MARK, b"1")


def _is_marked(folder: str) -> bool:
    try:
        return bool(os.getxattr(folder, _MARK))
    except (OSError, AttributeError):
        return False


def _swap(new: str, target: str) -> None:
    """Puts the folder `new` at `target`; the folder that was there, if any, is at `new` afterwards."""
    try:
        os.rename(new, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    if _exchange(new, target):
        return
    aside = f"{new}.old"
    os.rename(target, aside)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(aside, target)
        raise
    os.rename(aside, new)


def _exchange(first: str, other: str) -> bool:
    """Linux swaps two names at once (renameat2); False where that isn't to be had."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0)


def _sweep(parent: str, name: str) -> None:
    """Removes what a pull into the same folder left behind when it was killed, long ago."""
    pattern = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.{_SUFFIX}")
    oldest = time.time() - ABANDONED_AFTER
    with os.scandir(parent) as entries:
        abandoned = [entry for entry in entries if pattern.fullmatch(entry.name)]
    for entry in abandoned:
        with suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                shutil.rmtree(entry.path, ignore_errors=True)
