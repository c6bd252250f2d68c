"""`auth check`: tries the logins that a run will use, before the run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import click

from flows.cli.click_ext import Invocation, verb
from flows.cli.flags import open_session, registry_flags
from flows.cli.mirror.file import Mirrors
from oci.errors import Incomplete, StoreError
from oci.reference import Repository
from oci.relocation.session import Session
from oci.units import counted

_FILES = (".yaml", ".yml")
_HEADER = ("Repository", "Right", "Login", "Result")


@verb("check", "mirrors.yaml", "registry.example/shop/web", "registry.corp.example/mirror/web --push --json")
@click.argument("repositories", nargs=-1, metavar="[REPOSITORY|FILE]...")
@click.option("--push", is_flag=True, help="Try the right to push to the repositories that are named here, too.")
@registry_flags(sides=True)
def check(invocation: Invocation, /, **flags: Any) -> None:
    """Try the logins of repositories, or of all repositories that the mirrors of a FILE (.yaml) read and write.

    Reading is tried by asking for the tags; pushing by starting an upload, which is cancelled and leaves nothing.
    A login that is refused is named with where it comes from. Exit codes: 0 all work, 3 some do not, 1 none does.
    """
    invocation.output.check_columns(_HEADER)
    files = [text for text in flags["repositories"] if text.endswith(_FILES)]
    names = [Repository.parse(text) for text in flags["repositories"] if text not in files]
    if len(files) > 1 or not (files or names):
        raise click.UsageError("Expected repositories, or one file of mirrors")
    rights = ("pull", "push") if flags["push"] else ("pull",)
    rights_of = dict.fromkeys((name, right) for name in names for right in rights)
    opened: AbstractContextManager[Session]
    if not files:
        opened = open_session(invocation)
    else:
        mirrors = Mirrors.asked_for(invocation, {"path": files[0], "names": (), "only": ""})
        for mirror in mirrors.chosen:
            stores = [(mirror.source.store, "pull"), *((place.store, "push") for place in mirror.destinations)]
            rights_of |= {(store, right): None for store, right in stores if isinstance(store, Repository)}
        opened = mirrors.session()
    with opened as session:
        tried = [_tried(session, name, right) for name, right in rights_of]
    failures = [error for _, error in tried if error is not None]
    invocation.output.table("Logins", _HEADER, [row for row, _ in tried])
    keys = ("repository", "right", "login", "result")
    invocation.output.result(
        logins=[dict(zip(keys, row, strict=True)) | {"works": error is None} for row, error in tried]
    )
    if failures:
        raise Incomplete(
            f"{len(failures)} of {counted(len(tried), 'login')} {'does' if len(tried) == 1 else 'do'} not work",
            failures,
            some_done=len(failures) < len(tried),
            hint="the table says where each login comes from",
        )


def _tried(session: Session, name: Repository, right: str) -> tuple[list[str], StoreError | None]:
    store = session.repository("destination" if right == "push" else "source", name)
    error = None
    try:
        result = "works" if store.try_login(push=right == "push") else "works; there is no such repository yet"
    except StoreError as refusal:
        error, result = refusal, refusal.message
    return [str(name), right, store.login, result], error
