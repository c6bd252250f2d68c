from __future__ import annotations

import os
import resource
from pathlib import Path
from uuid import uuid4

import pytest

from flows.receiver.outbox import PUSHED, Journal, Outbox, event_of
from oci.errors import InvalidInput
from tests.flows.receiver.test_outbox import push


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def again(path: str, journal: Journal) -> Journal:
    """As after a crash: nothing is closed in order."""
    os.close(journal._file)
    return Journal(path)


def test_what_was_accepted_and_not_delivered_is_there_after_a_crash(path: str) -> None:
    events = [event_of(push(number)) for number in range(4)]
    journal = Journal(path)
    journal.accepted(events[:2])
    journal.accepted(events[2:])
    journal.delivered(events[:1], remaining=3)

    assert again(path, journal).waiting() == events[1:]


def test_it_is_empty_when_nothing_waits(path: str) -> None:
    journal = Journal(path)
    journal.accepted([event_of(push(1))])

    journal.delivered([], remaining=0)

    assert os.path.getsize(path) == 0


def test_a_line_that_was_cut_off_costs_no_other(path: str) -> None:
    events = [event_of(push(number)) for number in range(2)]
    journal = Journal(path)
    journal.accepted(events)
    os.truncate(path, os.path.getsize(path) - 10)

    assert again(path, journal).waiting() == events[:1]


def test_two_receivers_do_not_share_one(path: str) -> None:
    _first = Journal(path)

    with pytest.raises(InvalidInput, match="another receiver uses the journal"):
        Journal(path)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"can't use the journal .*: No such file or directory"):
        Journal(str(tmp_path / "nowhere" / "journal"))


def test_a_push_that_the_disk_does_not_take_is_not_accepted(path: str) -> None:
    journal = Journal(path)
    outbox = Outbox(journal=journal)
    outbox.put([push(1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 50, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            outbox.put([push(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert len(outbox) == 1
    assert outbox.put([push(2)]) == 1
    assert [event.payload["tag"] for event in journal.waiting()] == ["1.1", "1.2"]


def test_only_a_file_of_this_user_alone_is_a_journal(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "twice").hardlink_to(victim)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "twice", "pipe"):
        with pytest.raises(InvalidInput, match=r"link, or no regular file|symbolic links"):
            Journal(str(tmp_path / name))
    assert victim.read_text() == "precious"


def test_what_a_journal_says_is_of_pushes_or_is_left_out(path: str) -> None:
    honest = event_of(push(1))
    forged = [
        honest.model_copy(update={"id": uuid4(), "payload": payload})
        for payload in ({}, honest.payload | {"tag": "../x"}, honest.payload | {"repository": 7})
    ]
    other = honest.model_copy(update={"id": uuid4(), "event": "prefect.flow-run.Failed"})
    journal = Journal(path)
    journal.accepted([*forged, other, honest])

    waiting = list(Outbox(journal=journal)._waiting)

    assert [event.event for event in waiting] == [PUSHED, PUSHED]
    assert waiting[1] == honest
