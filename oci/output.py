"""Writing files, and what the operating system says of a file as an error of ours.

Every file that a command writes goes through this module. A reader sees the whole old file or the whole new one.
Nothing is written through a symbolic link. The new file gets its mode from the umask, unless the caller asks for a
stricter one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import select
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from typing import IO, Any

from msgspec import Struct

from oci.errors import Denied, NoSuchFile, NotFound, Refused, StoreError, TransshipError, Unavailable, UnusableFile
from oci.reference import LayoutFolder, Reference, StoreName, absolute, check_path

NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR})
BY_UMASK = 0o666
PRIVATE = 0o600
"""Mode of files that hold credentials, or that only their owner is to read."""
PATIENCE = 60.0
"""Seconds without a byte after which the other end of a named pipe counts as absent, and seconds that a lock is waited
for: any user who may open a file may hold its lock for ever."""

_MERGE_PATIENCE = 5.0
_PIECE = 1 << 20
_LONG_NAME = 200
"""Bytes: file systems take 255, and a name is lengthened while its file is written."""
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_SYSTEM_LINK = re.compile(r"/dev/(std(in|out|err)|fd/\d+)|/proc/(self|thread-self|\d+)/fd/\d+")
"""Links that lead to what this process has open already. Anybody may make links elsewhere below /dev: /dev/shm."""


def store_error(
    error: OSError, *, side: str = "", store: str = "", subject: str = "", operation: str, named: bool = False
) -> StoreError:
    """`store` names the layout, folder or archive that the file belongs to. `named` says that a person named the file:
    that it can't be used is wrong usage then."""
    kind: type[StoreError] = UnusableFile if named else Refused
    message = error.strerror or str(error)
    message = message[:1].lower() + message[1:]  # names of files in it keep their capitals
    hint = "check the path"
    if error.errno in NOT_THERE:
        kind = NoSuchFile if named else NotFound
        folder = os.path.dirname(absolute(os.fsdecode(error.filename))) if error.filename else ""
        hint = "make the folder first" if folder and not os.path.lexists(folder) else hint
    elif error.errno in _FORBIDDEN:
        kind = UnusableFile if named else Denied
        hint = "check who may read and write there, and whether it is mounted read-only"
    elif error.errno in _FULL:
        kind, message, hint = Refused, "the disk is full", "make room and run it again"
    elif error.errno == errno.EFBIG:  # also beyond what `ulimit -f` allows
        kind, hint = Refused, "choose another file system, or raise the limit of this shell (ulimit -f)"
    elif error.errno == errno.EIO:
        kind, hint = Unavailable, "check the disk"
    elif error.errno == errno.ETIMEDOUT:
        kind = UnusableFile if named else Unavailable
        hint = "find out which process has the file open (fuser, lslocks), and run it again"
    return kind(message, side=side, store=store, subject=subject, operation=operation, hint=hint)


@contextmanager
def os_errors(
    *, side: str = "", store: str = "", subject: str = "", operation: str, named: bool = False
) -> Iterator[None]:
    """Raises a StoreError in place of an OSError, as `store_error` makes it."""
    try:
        yield
    except OSError as error:
        raise store_error(error, side=side, store=store, subject=subject, operation=operation, named=named) from error


def read_named(path: str, operation: str, *, limit: int, hint: str = "", head: bool = False) -> bytes:
    """Reads a file that a person named. Raises a StoreError, nearly always an UnusableFile, with `hint` if one is
    given; also for a file of more than `limit` bytes, of which the beginning would mean something else. With `head`,
    only the beginning is wanted."""
    try:
        with os_errors(subject=path, operation=operation, named=True):
            data = read_file(path, limit if head else limit + 1)
    except StoreError as error:
        error.hint = hint or error.hint
        raise
    if len(data) > limit:
        raise UnusableFile(f"it has more than {limit} bytes", subject=path, operation=operation, hint=hint)
    return data


def read_file(path: str, limit: int) -> bytes:
    """Reads at most `limit` bytes of a file, a device or a pipe. Raises OSError, with ETIMEDOUT for a named pipe that
    no process writes to; what the shell has opened for us (`<(...)`, /dev/stdin) may take its time."""
    handle = os.open(check_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        waits = stat.S_ISFIFO(status.st_mode) and not _is_system_link(path)
        os.set_blocking(handle, not waits)
        data = bytearray()
        while len(data) < limit:
            if waits:
                _wait(handle, select.POLLIN, "written to", path, PATIENCE)
            piece = os.read(handle, min(limit - len(data), _PIECE))
            if not piece:
                break
            data += piece
        return bytes(data)
    finally:
        os.close(handle)


def check_no_pipe(path: str) -> None:
    """Raises OSError for a named pipe: for a file that a library opens by itself, and would wait for its writer."""
    if stat.S_ISFIFO(os.stat(check_path(path)).st_mode) and not _is_system_link(path):
        raise OSError(errno.EINVAL, "this is a pipe, and no regular file", path)


def lock_file(handle: int, path: str, patience: float | None = None) -> None:
    """Waits for the lock of an open file. Raises OSError with ETIMEDOUT after `patience` (PATIENCE) seconds."""
    patience = PATIENCE if patience is None else patience
    ends, pause = time.monotonic() + patience, 0.001
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                message = f"another process has held the lock {path} for {patience:g} seconds"
                raise TimeoutError(errno.ETIMEDOUT, message, path) from None
        else:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


@contextmanager
def replacing(path: str, mode: int) -> Iterator[IO[bytes]]:
    """Gives a new file to write, which takes the place of the regular file at `path`, or of nothing, when it is left.
    It has `mode` less the umask. Raises OSError; nothing half-made is left then, and no pipe or device is replaced."""
    folder, name = os.path.split(path)
    name = name if len(os.fsencode(name)) <= _LONG_NAME else name[: _LONG_NAME // 4]  # a character has 4 bytes at most
    partial = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.partial")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    if _stays(path):
        raise OSError(errno.EEXIST, "a pipe or a device is there, and no file takes its place", path)
    handle = os.open(partial, flags, mode)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def replace_file(path: str, data: bytes, mode: int = PRIVATE) -> None:
    """Puts a new regular file at `path`, as `replacing` does.

    For files of the program's own, in a folder of its own. A path that a person named goes to `write_output`.
    """
    with replacing(path, mode) as file:
        file.write(data)


def write_output(path: str, data: bytes, mode: int = BY_UMASK, patience: float | None = None) -> None:
    """Writes a file that a person named. A regular file is replaced as a whole. A pipe or a device, such as
    /dev/stdout, is written to and stays. Raises OSError as `check_output` does, and with ETIMEDOUT for a pipe of which
    no process has read a byte for `patience` (PATIENCE) seconds.
    """
    check_output(path)
    if _is_stream(path):
        _write_stream(path, data, PATIENCE if patience is None else patience)
    else:
        replace_file(path, data, mode)


def _write_stream(path: str, data: bytes, patience: float) -> None:
    # What is there may have become a link since it was looked at.
    flags = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC | (0 if _is_system_link(path) else os.O_NOFOLLOW)
    ends = time.monotonic() + patience
    while True:
        try:
            handle = os.open(path, flags)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):
                raise
            if time.monotonic() >= ends:
                raise _timed_out("read", path, patience) from None
        time.sleep(0.02)
    try:
        unwritten = memoryview(data)
        while unwritten:
            try:
                unwritten = unwritten[os.write(handle, unwritten) :]
            except BlockingIOError:
                _wait(handle, select.POLLOUT, "read", path, patience)
    finally:
        os.close(handle)


def _wait(handle: int, event: int, deed: str, path: str, patience: float) -> None:
    """Waits until the other end of a pipe has done its part. Raises OSError with ETIMEDOUT."""
    poll = select.poll()
    poll.register(handle, event)
    if not poll.poll(patience * 1000):
        raise _timed_out(deed, path, patience)


def _timed_out(deed: str, path: str, patience: float) -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, f"no process has {deed} the pipe {path} for {patience:g} seconds", path)


def check_outputs(*paths: str) -> None:
    """Raises a StoreError for a file that can't be written; empty paths are left out. To be asked before the work."""
    for path in filter(None, paths):
        with os_errors(store=path, operation="checking that it can be written", named=True):
            check_output(path)


def write_json(path: str, body: dict[str, Any]) -> None:
    """Writes a report or a plan. Raises a StoreError."""
    with os_errors(store=path, operation="writing the file"):
        write_output(path, json.dumps(body, indent=1).encode())


def check_output(path: str) -> None:
    """Raises the OSError that writing a file there would meet; to be asked before the work whose result it is to hold.

    ELOOP stands for a symbolic link: no output is written through one, except those of the system, such as /dev/stdout.
    """
    folder = os.path.dirname(absolute(path))
    if os.path.islink(path) and not _is_system_link(path):
        raise OSError(errno.ELOOP, "this is a symbolic link, and no output is written through a link", path)
    if not path or path.endswith("/") or os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not os.path.lexists(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    os.stat(os.path.join(folder, ""))
    with suppress(FileNotFoundError):
        os.lstat(path)  # a name may be too long
    if not (os.access(path, os.W_OK) if _is_stream(path) else os.access(folder, os.W_OK | os.X_OK)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def open_regular(path: str) -> int:
    """Opens a regular file for reading, perhaps through links. Raises OSError for anything else: a pipe would make us
    wait for its writer, and a device may never end."""
    file = os.open(check_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "this is no regular file", path)


def open_own(path: str, flags: int = os.O_RDONLY, mode: int = PRIVATE) -> int:
    """Opens a file that only this user can have written: a regular one of his, with one name. For what a program left
    for its next run, at a place where others may put things. Raises OSError, with ELOOP for anything else; a pipe is
    never waited for."""
    try:
        file = os.open(check_path(path), flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    else:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink <= 1:
            return file
        os.close(file)
    raise OSError(errno.ELOOP, "this is a link, or no regular file of this user alone", path)


def read_own(path: str, limit: int) -> bytes:
    """Reads at most `limit` bytes of a file that `open_own` opens. Raises OSError."""
    with os.fdopen(open_own(path), "rb") as file:
        return file.read(limit)


def merge_own(path: str, merged: Callable[[], bytes]) -> None:
    """Replaces a file of the program's own with what `merged` makes of it while no other process writes there: the
    folder, which is made where it isn't there, is locked. Raises OSError, with ETIMEDOUT where it stays locked."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock_file(handle, folder, _MERGE_PATIENCE)
        replace_file(path, merged())
    finally:
        os.close(handle)


def check_destination(name: StoreName) -> None:
    """Raises a StoreError for an image-layout folder that can't be made or written. To be asked before the work."""
    if isinstance(name, LayoutFolder):
        path = name.path
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        with os_errors(store=str(name), operation="checking that it can be written", named=True):
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def sync_folder(path: str) -> None:
    """Makes the names in a folder survive a power failure. Raises OSError."""
    folder = os.open(path or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _stays(path: str) -> bool:
    """Says whether a pipe, a device, a socket or a link of the system is there, whose place no file takes."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    if stat.S_ISLNK(mode):
        return _is_system_link(path)
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_system_link(path: str) -> bool:
    return _SYSTEM_LINK.fullmatch(absolute(path)) is not None


def _is_stream(path: str) -> bool:
    """Says whether a pipe, a device or a link of the system is there."""
    return os.path.exists(path) and (os.path.islink(path) or not stat.S_ISREG(os.stat(path).st_mode))


_TEXTS = (StoreName, Reference, TransshipError)


def to_dict(value: Struct) -> dict[str, Any]:
    """Returns the fields of a value by name, all in plain form: references, names of stores and errors are text, an
    enum is its value, a tuple is a list. It is what reports, events and stored plans have."""
    return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, _TEXTS):
        return value if value is None else str(value)
    if isinstance(value, Struct):
        return to_dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value
