from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oci.digest import Verifier
from oci.errors import Cancelled, IntegrityError
from oci.export import assembly
from oci.export.assembly import Chains
from oci.export.tar_plan import Piece
from tests.support.tarballs import Tarball

SIZE = 3000


def pieces(tarball: Tarball) -> tuple[list[Piece], bytes]:
    """The blob in three pieces, and its bytes."""
    plan = tarball.plan
    member = plan.members[1]
    cuts = [member.data_offset + at for at in (0, 1000, 2000, SIZE)]
    found = [plan.pieces(low, high) for low, high in itertools.pairwise(cuts)]
    return [next(iter(one)) for one in found], next(iter(tarball.blobs.values()))


class _Slow:
    """A hash that takes its time, as one of megabytes does."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def update(self, data: bytes) -> None:
        time.sleep(0.05)
        self._real.update(data)

    def hexdigest(self) -> str:
        return str(self._real.hexdigest())


class _SlowVerifier(Verifier):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._hash: Any = _Slow(self._hash)


def test_pieces_are_hashed_in_order_whoever_is_woken_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "Verifier", _SlowVerifier)
    cut, data = pieces(Tarball.of(1, [SIZE]))
    chains = Chains()
    over = threading.Event()

    def wake() -> None:
        """Other blobs' pieces end all the time."""
        while not over.wait(0.001):
            with chains._turn:
                chains._turn.notify_all()

    threading.Thread(target=wake).start()
    with ThreadPoolExecutor(3) as threads:
        running = [
            threads.submit(chains.update, piece, [data[piece.blob_offset : piece.blob_offset + piece.length]])
            for piece in reversed(cut)
        ]
    over.set()

    assert [future.exception() for future in running] == [None, None, None]


def test_a_wrong_byte_is_found_by_the_last_piece() -> None:
    cut, data = pieces(Tarball.of(1, [SIZE]))
    chains = Chains()
    chains.update(cut[0], [b"x" + data[1:1000]])
    chains.update(cut[1], [data[1000:2000]])

    with pytest.raises(IntegrityError):
        chains.update(cut[2], [data[2000:]])


def test_whoever_waits_is_told_when_there_is_nothing_to_wait_for() -> None:
    cut, data = pieces(Tarball.of(1, [SIZE]))
    chains = Chains()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(chains.update, cut[1], [data[1000:2000]])
        chains.break_off(Cancelled())

    assert isinstance(waiting.exception(), Cancelled)
