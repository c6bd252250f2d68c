"""What is kept for the next run in the cache folder of this machine: what was learned about registries, and where
upload sessions are that a run left behind.

All of it may be lost, or wrong by now, at the price of some requests: facts are tried again after a week, and corrected
by what a registry does; a session is asked for before it is used. Runs side by side don't disturb each other: facts are
merged under a lock of the folder, and the file of a session is locked by the process that sends to it.

    registries.json           facts by host
    uploads/<key>             the address of one upload session
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from oci.output import merge_own, open_own, read_own
from oci.registry.http.address_policy import host_of, is_loopback

LIFETIME = 7 * 86_400.0
"""Seconds that anything is kept: registries purge unfinished uploads after a week, and what they refuse may change."""

_RATE_LIFETIME = 86_400.0
_CLOCKS = 3600.0
"""Seconds that machines with one folder may differ in."""
HOSTS = 500
UPLOADS = 200
FILE_LIMIT = 4 << 20
_URL_LIMIT = 8 << 10


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was seen of a registry. `works` has kinds of requests by their names; `at` is in seconds since the epoch."""

    profile: str = ""
    works: Mapping[str, bool] = {}
    body_limit: int = 0
    rates: Mapping[str, float] = {}
    """Requests a second that the registry took before it asked for a slower pace, by family (`PUT manifest`)."""

    ends_older: bool = False
    """Its token service ends older tokens whenever it gives another."""

    at: float = 0.0

    def current_rates(self, now: float) -> dict[str, float]:
        """The rates to begin with: what was learned grows by its own size in an hour, and is forgotten after a day."""
        age = max(0.0, now - self.at)
        return {} if age > _RATE_LIFETIME else {name: rate * (1 + age / 3600) for name, rate in self.rates.items()}


class _StateFile(msgspec.Struct):
    version: int = 1
    registries: dict[str, Facts] = {}


class KeptUpload:
    """The file of one upload session, locked by this process as long as it is open."""

    def __init__(self, path: str, file: int) -> None:
        self._path = path
        self._file = file

    @property
    def location(self) -> str:
        """The address of the session, as the registry gave it last; empty for a file that can't be used."""
        with suppress(OSError, ValueError):
            text = os.pread(self._file, _URL_LIMIT, 0).decode("ascii")
            return text.rstrip("\n") if text.endswith("\n") else ""
        return ""

    def write(self, location: str) -> None:
        data = f"{location}\n".encode()
        if len(data) <= _URL_LIMIT:
            with suppress(OSError):
                os.ftruncate(self._file, os.pwrite(self._file, data, 0))

    def release(self) -> None:
        """Leaves the session to the next run. A second time it does nothing: the number of the file may be that of
        another thread's connection by then."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def end(self) -> None:
        """The session is over."""
        with suppress(OSError):
            os.unlink(self._path)
        self.release()


class State:
    """`folder` is where it is kept; empty for memory alone, then nothing outlives the run. What can't be read or
    written is as if it weren't there."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._path, self._uploads = os.path.join(folder, "registries.json"), os.path.join(folder, "uploads")
        self._facts: dict[str, Facts] | None = None
        self._swept = False

    def facts(self, host: str) -> Facts:
        """`host` is canonical."""
        if self._facts is None:
            self._facts = self._read()
        return self._facts.get(host, Facts())

    def learn(self, new: Mapping[str, Facts]) -> None:
        """Adds the facts of a run to those that other runs have written meanwhile. A port of this machine changes hands
        too often for facts to be worth anything."""
        now = time.time()
        stamped = {host: msgspec.structs.replace(facts, at=now) for host, facts in new.items() if _is_lasting(host)}
        if not self._folder or not stamped:
            return

        def merged() -> bytes:
            newest = sorted({**self._read(), **stamped}.items(), key=lambda item: item[1].at)[-HOSTS:]
            return msgspec.json.encode(_StateFile(registries=dict(newest)))

        with suppress(OSError):
            merge_own(self._path, merged)

    def kept_upload(self, repository: str, digest: str, *, make: bool = False) -> KeptUpload | None:
        """The session of a blob that an earlier run left, or, with `make`, the place for a new one. None without a
        folder, without such a session, and while another run sends to it."""
        if not self._folder:
            return None
        key = hashlib.sha256(f"{repository}@{digest}".encode()).hexdigest()
        path = os.path.join(self._uploads, key)
        try:
            if make:
                os.makedirs(self._uploads, exist_ok=True)
                self._sweep()
            file = open_own(path, os.O_RDWR | (os.O_CREAT if make else 0))
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        upload = KeptUpload(path, file)
        if not make and os.fstat(file).st_mtime < time.time() - LIFETIME:
            upload.end()
            return None
        return upload

    def _read(self) -> dict[str, Facts]:
        if not self._folder:
            return {}
        try:
            content = msgspec.json.decode(read_own(self._path, FILE_LIMIT), type=_StateFile)
        except (OSError, msgspec.DecodeError, RecursionError):
            return {}
        now = time.time()
        registries = content.registries if content.version == 1 else {}
        # What a clock that was wrong has written would never be forgotten, and would take the place of newer facts.
        return {host: facts for host, facts in registries.items() if now - LIFETIME < facts.at <= now + _CLOCKS}

    def _sweep(self) -> None:
        """Removes the files of sessions that are too old, and the oldest of too many."""
        if self._swept:
            return
        self._swept = True
        with os.scandir(self._uploads) as entries:
            files = sorted(
                ((entry.stat(follow_symlinks=False).st_mtime, entry.path) for entry in entries), reverse=True
            )
        oldest = time.time() - LIFETIME
        for number, (moment, path) in enumerate(files):
            if number >= UPLOADS or moment < oldest:
                with suppress(OSError):
                    os.unlink(path)


def default_folder() -> str:
    """In the cache folder of the user that runs this."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "transship")


def _is_lasting(host: str) -> bool:
    return not is_loopback(host_of(host))
