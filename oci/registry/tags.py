"""Listing tags and repositories (distribution-spec, end-8; the catalog is Docker's)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from oci.errors import Refused
from oci.reference import Repository
from oci.registry.http import target as targets
from oci.registry.http.answer import Answer
from oci.registry.http.request import Request, Scope
from oci.registry.http.target import Target
from oci.registry.http.transport import Transport

PAGE = 999
"""Names asked for at a time: ECR refuses to give more than 1000. One less than a round number, so that an answer of
exactly 1000 is longer than asked for, which shows that the registry doesn't page at all."""

_ROUND = 50
"""What the page sizes of registries are multiples of: 50, 100, 1000."""

_NEXT = re.compile(r'<([^>]*)>[^,]*;\s*rel="?next"?', re.IGNORECASE)


def list_tags(transport: Transport, name: Repository, *, exhaustive: bool = False) -> Iterator[str]:
    """With `exhaustive`, a page without a Link is not believed to be the last: `last=` is asked until a page brings
    nothing new. For callers that delete what isn't named: some registries cut a list short without a Link."""
    path = partial(targets.tags, name)
    return _pages(transport, path, "tags", Scope(name.path, "pull"), str(name), exhaustive=exhaustive)


def catalog(transport: Transport) -> Iterator[str]:
    """The repositories of a registry, as far as it tells."""
    return _pages(transport, targets.catalog, "repositories", Scope("", "catalog"), transport.registry)


def next_page(answer: Answer, target: Target) -> Target | None:
    """The page after the one at `target` (RFC 8288), or None."""
    found = _NEXT.search(answer.headers.get("link", ""))
    return target.next_page(found.group(1)) if found else None


def _pages(
    transport: Transport,
    path: Callable[..., Target],
    key: str,
    scope: Scope,
    subject: str,
    *,
    exhaustive: bool = False,
) -> Iterator[str]:
    """Follows `Link`. A page of a round length, or of the one asked for, without one is perhaps a full page of a
    registry that leaves it out: it is followed by `last=`. Ends when a page brings nothing new, or more than was asked
    for: docker-registry 2.8.2 ignores both and gives everything each time."""
    kind = "tags" if key == "tags" else "catalog"
    target: Target | None = path(n=str(PAGE))
    seen: set[str] = set()
    while target:
        answer = transport.send(
            Request(
                method="GET",
                target=target,
                kind=kind,
                scopes=(scope,),
                operation=f"listing the {key}",
                subject=subject,
                expect=frozenset({200}),
            )
        )
        names = _names(answer, key, transport, subject)
        new = [name for name in names if name not in seen]
        seen.update(new)
        yield from new
        target = next_page(answer, target) if new else None
        suspicious = len(names) == PAGE or (len(names) < PAGE and (exhaustive or len(names) % _ROUND == 0))
        if new and not target and suspicious:
            target = path(n=str(PAGE), last=names[-1])


def _names(answer: Answer, key: str, transport: Transport, subject: str) -> list[str]:
    try:
        body: Any = json.loads(answer.body)
        names = body.get(key) or []
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    except (ValueError, AttributeError, RecursionError):
        pass
    raise Refused(
        f"the answer is no list of {key}",
        side=transport.side,
        store=transport.registry,
        subject=subject,
        operation=f"listing the {key}",
    )
