"""`mirror run` on its way: a line for each mirror that has something to do, and a sum of all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flows.cli.progress import Rates, clock
from oci.meter import Receipt
from oci.units import counted, show_size

_NAME = 30


@dataclass(slots=True)
class _Mirror:
    tags: int
    moved: int = 0
    sent: int = 0


@dataclass(slots=True)
class MirrorsProgress:
    """What is known of a run's mirrors. Told by the run's threads, and asked by the thread that draws."""

    receipt: Callable[[], Receipt]
    named: int
    """Mirrors of the file; those of a namespace come as they are found."""
    _busy: dict[str, _Mirror] = field(default_factory=dict)
    _finished: int = 0
    _tags: int = 0
    _failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _rates: Rates = field(default_factory=Rates)
    _started: float = field(default_factory=time.monotonic)

    def compared(self, mirror: str, tags: int) -> None:
        """The mirror has so many tags to move."""
        with self._lock:
            self._busy[mirror] = _Mirror(tags)

    def moved(self, mirror: str, tags: int, sent: int) -> None:
        with self._lock:
            work = self._busy.setdefault(mirror, _Mirror(tags))
            work.moved += tags
            work.sent += sent

    def finished(self, mirror: str, *, failed: bool) -> None:
        with self._lock:
            work = self._busy.pop(mirror, None)
            self._finished += 1
            self._failed += failed
            self._tags += work.moved if work else 0

    def lines(self, width: int) -> list[str]:
        """The whole first, then each mirror under way."""
        with self._lock:
            busy = {name: (work.tags, work.moved, work.sent) for name, work in self._busy.items() if work.tags}
        table = [self.line()]
        name_width = min(_NAME, max((len(name) for name in busy), default=0), max(8, width - 40))
        for name, (tags, moved, sent) in busy.items():
            rate = self._rates.of(name, sent)
            row = f"  {name[:name_width]:{name_width}}  {moved} of {counted(tags, 'tag')}"
            table.append(f"{row}  {show_size(sent)}" + (f"  {show_size(rate)}/s" if rate else ""))
        return table

    def line(self) -> str:
        """`3 of 40 mirrors, 12 of 60 tags, 1.2 GiB sent, 80.0 MiB/s, 2m10s left`."""
        with self._lock:
            tags = self._tags + sum(work.tags for work in self._busy.values())
            moved = self._tags + sum(work.moved for work in self._busy.values())
            mirrors = max(self.named, self._finished + len(self._busy))
            finished, failed = self._finished, self._failed
        sent = self.receipt().bytes_written
        rate = self._rates.of("", sent)
        parts = [f"{finished} of {counted(mirrors, 'mirror')}", f"{moved} of {counted(tags, 'tag')}"]
        parts += [f"{failed} failed"] if failed else []
        parts.append(f"{show_size(sent)} sent")
        parts += [f"{show_size(rate)}/s"] if rate else []
        if 0 < moved < tags:
            parts.append(f"{clock((time.monotonic() - self._started) / moved * (tags - moved))} left")
        return ", ".join(parts)
