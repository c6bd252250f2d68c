"""A file that remembers, over the end of the process, what was accepted and not delivered yet."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence

from prefect.events import Event
from pydantic import ValidationError

from oci.errors import InvalidInput
from oci.output import open_own

_ACCEPTED = b"+"
_DELIVERED = b"-"

_log = logging.getLogger("transship.receiver")


class Journal:
    """One line for each event that was accepted, on the disk before the registry is answered; one for each that was
    delivered. It is emptied whenever nothing waits, so it grows only while the Prefect server is away.

    Raises InvalidInput when the file can't be used, or another receiver uses it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInput(f"another receiver uses the journal {path}") from error
        except OSError as error:
            hint = "remove it, or name another file" if error.errno == errno.ELOOP else ""
            raise InvalidInput(f"can't use the journal {path}: {error.strerror}", hint=hint) from error

    def waiting(self) -> list[Event]:
        """Returns those of an earlier process, in their order."""
        undelivered: dict[str, Event] = {}
        for kind, body in self._lines():
            if kind == _DELIVERED:
                undelivered.pop(body.decode(errors="replace"), None)
                continue
            try:
                event = Event.model_validate_json(body)
            except ValidationError:  # the last line, when the power went
                _log.warning("left out a line of %s that can't be read", self.path)
                continue
            undelivered[str(event.id)] = event
        return list(undelivered.values())

    def _lines(self) -> Iterator[tuple[bytes, bytes]]:
        with os.fdopen(os.dup(self._file), "rb") as file:  # not by its name, which may be another's by now
            file.seek(0)
            for line in file:
                yield line[:1], line[1:].rstrip(b"\n")

    def accepted(self, events: Sequence[Event]) -> None:
        """Raises OSError when they can't be kept; then none of them is."""
        lines = b"".join(_ACCEPTED + event.model_dump_json().encode() + b"\n" for event in events)
        size = os.fstat(self._file).st_size
        try:
            while lines:  # a disk that is nearly full takes a part and refuses the rest
                lines = lines[os.write(self._file, lines) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def delivered(self, events: Sequence[Event], *, remaining: int) -> None:
        """Never raises: an event that is delivered once more after a crash has the same id and counts once."""
        try:
            if remaining:
                os.write(self._file, b"".join(_DELIVERED + str(event.id).encode() + b"\n" for event in events))
            else:
                os.ftruncate(self._file, 0)
        except OSError as error:
            _log.warning("can't note in %s what was delivered: %s", self.path, error.strerror)
