"""Listing tags and repositories (distribution-spec, end-8; the catalog is Docker's)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from oci.descriptor import parse_json
from oci.errors import Refused, StoreError
from oci.reference import is_path, is_tag
from oci.registry import endpoints
from oci.registry.endpoints import GET_CATALOG, GET_TAGS, GET_TAGS_AFTER, GET_TAGS_PAGE, Kind, Scope, Target
from oci.registry.http.answer import Answer
from oci.registry.http.transport import Remote, Transport
from oci.registry.profiles import is_refusal

PAGE = 999
"""Names asked for at a time: ECR refuses to give more than 1000. One less than a round number, so that an answer of
exactly 1000 is longer than asked for, which shows that the registry doesn't page at all."""

PAGES_LIMIT = 20_000
"""Pages of a list that are read."""

_ROUND = 50
"""What the page sizes of registries are multiples of: 50, 100, 1000."""

_LINK = re.compile(r'<([^<>]*)>((?:\s*;[^<>;,"]*(?:"[^"<>]*")?)*)')
"""A link of a Link header and its parameters (RFC 8288, section 3); a quoted value may have commas."""

_RELATION = re.compile(r';\s*rel\s*=\s*"?([^";,]*)', re.IGNORECASE)


def list_tags(remote: Remote, *, exhaustive: bool = False) -> Iterator[str]:
    """With `exhaustive`, a page without a Link is not believed to be the last: `last=` is asked until a page brings
    nothing new, and names that can't be asked for are given, too. For callers that delete what isn't named: some
    registries cut a list short without a Link."""
    name = remote.name
    path, scope = partial(endpoints.tags, name), Scope(name.path, "pull")
    return _pages(remote.transport, path, scope, str(name), exhaustive=exhaustive)


def catalog(transport: Transport) -> Iterator[str]:
    """The repositories of a registry, as far as it shows them."""
    return _pages(transport, endpoints.catalog, Scope("", "catalog"), transport.registry)


def next_page(answer: Answer, target: Target) -> Target | None:
    """The page after the one at `target` (RFC 8288), or None."""
    for address, parameters in _LINK.findall(answer.headers.get("link", "")):
        relation = _RELATION.search(parameters)
        if relation and "next" in relation.group(1).lower().split():
            return target.next_page(address)
    return None


def _pages(
    transport: Transport, path: Callable[..., Target], scope: Scope, subject: str, *, exhaustive: bool = False
) -> Iterator[str]:
    """Follows `Link`. A page of a round length, or of the one asked for, without a link is perhaps a full page of a
    registry that leaves it out: it is followed by `last=`. Ends when a page brings nothing new, or more than was asked
    for: docker-registry 2.8.2 ignores both and gives everything each time. Where `n` is refused, the list is read
    without it; where a `last=` that no link named is refused, what was read is the list."""
    listing, learned = GET_TAGS if scope.repository else GET_CATALOG, transport.learned

    def ask(target: Target, kind: Kind) -> Answer:
        kind = msgspec.structs.replace(kind, resource=listing.resource, operation=listing.operation)
        return transport.send(kind.request(target, scope.repository, subject, scopes=(scope,), retry=True))

    answer: Answer | None = None
    size = "" if learned.works(GET_TAGS_PAGE) is False else str(PAGE)
    target: Target | None = path(n=size) if size else path()
    if size:
        try:
            answer = ask(path(n=size), GET_TAGS_PAGE)
        except StoreError as refusal:
            if not is_refusal(refusal):
                raise
            answer = ask(path(), listing)
            learned.refuse(GET_TAGS_PAGE, refusal)
            size, target = "", path()
    listed: set[str] = set()
    for _ in range(PAGES_LIMIT):
        if target is None:
            return
        answer = answer or ask(target, listing)
        names = _names(answer, transport, subject, listing)
        new = [name for name in dict.fromkeys(names) if name not in listed]
        listed.update(new)
        usable = [name for name in new if (is_tag if scope.repository else is_path)(name)]
        if len(usable) < len(new):
            learned.note(f"names in the list of {subject} that can't be asked for, left out")
        yield from filter(None, new) if exhaustive else usable
        link = answer.headers.get("link", "")
        unread = link != "" and _LINK.search(link) is None  # a form that RFC 8288 doesn't have: there is more
        is_full = len(names) == PAGE or (len(names) < PAGE and (exhaustive or unread or len(names) % _ROUND == 0))
        target, answer = next_page(answer, target) if new else None, None
        if new and target is None and is_full and learned.works(GET_TAGS_AFTER) is not False:
            target = path(**({"n": size} if size else {}), last=names[-1])
            try:
                answer = ask(target, GET_TAGS_AFTER)
            except StoreError as refusal:
                if not is_refusal(refusal) and refusal.status not in (401, 403, 404):
                    raise
                learned.refuse(GET_TAGS_AFTER, refusal)
                return
    endless = transport.error(Refused, f"the list has more than {PAGES_LIMIT} pages", subject, listing.operation)
    endless.hint = "a registry that never ends its list is broken, or an attack"
    raise endless


def _names(answer: Answer, transport: Transport, subject: str, kind: Kind) -> list[str]:
    """The names of a page. What is no text among them is an empty name, which is nothing's."""
    key = "tags" if kind is GET_TAGS else "repositories"
    try:
        body: Any = parse_json(answer.body)
        # Without a tag some leave the key out, and none the name. `null` is an empty list (docker-registry).
        names = body.get(key) or [] if key in body or (kind is GET_TAGS and "name" in body) else None
        if isinstance(names, list) and (not names or any(isinstance(name, str) for name in names)):
            return [name if isinstance(name, str) else "" for name in names]
    except (ValueError, AttributeError, TypeError):
        pass
    raise transport.error(Refused, f"the answer is no list of {key}", subject, kind.operation)
