from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from oci.errors import Cancelled, CancelToken
from oci.layout.store import LayoutStore
from oci.reference import LayoutFolder
from oci.relocation.session import Session
from oci.relocation.verify import verify_names
from oci.signatures.artifacts import ArtifactSelection
from oci.signatures.attached import Attachments
from tests.support.plans import digest
from tests.support.relocating import anonymous


def test_handlers_of_errors_do_not_catch_it() -> None:
    token = CancelToken()
    token.cancel()

    with pytest.raises(Cancelled), suppress(Exception):
        token.check()


class Listener:
    heard = 0

    def hear(self) -> None:
        self.heard += 1


def test_a_token_keeps_nothing_alive_that_listens_to_it() -> None:
    """A `mirror watch` has one token, and registries of its own for each run."""
    token, listener = CancelToken(), Listener()
    gone = weakref.ref(Listener())
    for _ in range(100):
        token.on_cancel(Listener().hear)
    token.on_cancel(listener.hear)

    token.cancel()

    assert gone() is None
    assert listener.heard == 1
    assert len(token._listeners) == 1


def cancelled(*_: object) -> Iterator[str]:
    raise Cancelled


@pytest.mark.parametrize(
    ("artifacts", "method", "images"),
    [("cosign", "tags", 3), ("cosign", "head_manifest", 1), ("referrers", "referrers", 1)],
)
def test_a_search_for_attachments_ends_with_it(tmp_path: Path, artifacts: str, method: str, images: int) -> None:
    name = LayoutFolder(str(tmp_path / "source"))
    with Session(source=anonymous(), destination=anonymous()) as session:
        attachments = Attachments(
            ArtifactSelection([artifacts]),
            session.workers,
            listed={},
            failed=lambda subject, error: pytest.fail(f"{subject}: {error}"),
            noted=lambda store, text: pytest.fail(f"{store}: {text}"),
        )
        with patch.object(LayoutStore, method, cancelled), pytest.raises(Cancelled):
            attachments.of(session.source(name), [digest(number) for number in range(images)])


def test_a_verification_ends_with_it(tmp_path: Path) -> None:
    with (
        Session(source=anonymous(), destination=anonymous()) as session,
        patch.object(LayoutStore, "head_manifest", cancelled),
        pytest.raises(Cancelled),
    ):
        verify_names(session, LayoutFolder(str(tmp_path)), ["latest"])
