"""What registries send when something was pushed: docker-registry's envelope of events, and Harbor's webhook in both
of its formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from oci.bundle.tagnames import is_internal
from oci.descriptor import parse_json
from oci.digest import Digest, parse_digest
from oci.errors import InvalidInput
from oci.reference import Repository, parse_tag
from oci.registry.http.origin import origin_of

_HARBOR_PUSHED = frozenset({"PUSH_ARTIFACT", "harbor.artifact.pushed"})
_ATTACHED = re.compile(r"sha(256|512)-[0-9a-f]{64}")
"""How a tag begins that holds signatures or referrers of another image: a mirror of that image asks for them."""


@dataclass(frozen=True, slots=True)
class Push:
    """A tag that now stands for a digest."""

    repository: Repository
    tag: str
    digest: Digest

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Notification:
    """One message of a registry. `ignored` counts what it has besides pushes of tags that people gave; `broken` says
    in words what couldn't be read."""

    pushes: tuple[Push, ...] = ()
    ignored: int = 0
    broken: tuple[str, ...] = ()


class NotANotification(InvalidInput):
    """The body is no message of a registry that is known here."""


def read(body: bytes, registry: str = "") -> Notification:
    """`registry` replaces the host that the message names, for a registry that is known to mirrors by another name.

    One unreadable event doesn't spoil the others: docker-registry sends what was refused again, for ever and before
    anything newer. Raises NotANotification.
    """
    try:
        document = parse_json(body)
    except ValueError as error:
        raise NotANotification("the body is not JSON") from error
    if not isinstance(document, dict):
        raise NotANotification("the body is not a JSON object")
    if isinstance(document.get("events"), list):
        events = [_docker_registry(event) for event in document["events"]]
    elif isinstance(document.get("type"), str):
        events = list(_harbor(document)) if document["type"] in _HARBOR_PUSHED else [None]
    else:
        raise NotANotification(
            "this is neither docker-registry's nor Harbor's format",
            hint="docker-registry sends `events`, Harbor's default and CloudEvents formats have a `type`",
        )
    pushes, broken, ignored = [], [], 0
    for event in events:
        if event is None or is_internal(str(event[2])) or _ATTACHED.match(str(event[2])):
            ignored += 1
            continue
        try:
            pushes.append(_push(*event, registry=registry))
        except InvalidInput as error:
            broken.append(str(error))
    return Notification(tuple(pushes), ignored, tuple(broken))


_Event = tuple[object, object, object, object]
"""Host, repository path, tag, digest: as they came, unchecked."""


def _docker_registry(event: Any) -> _Event | None:
    """A push has a tag only where a manifest was pushed under one; blobs and manifests by digest have none."""
    target = event.get("target") if isinstance(event, dict) else None
    if not isinstance(target, dict) or event.get("action") != "push" or not target.get("tag"):
        return None
    request = event.get("request")
    host = request.get("host") if isinstance(request, dict) else None
    return host, target.get("repository"), target["tag"], target.get("digest")


def _harbor(document: dict[str, Any]) -> Iterator[_Event | None]:
    data = document.get("event_data", document.get("data"))
    resources = data.get("resources") if isinstance(data, dict) else None
    if not isinstance(resources, list):
        yield None
        return
    for resource in resources:
        if not isinstance(resource, dict):
            yield None
            continue
        digest, tag = resource.get("digest"), resource.get("tag")
        if not tag or tag == digest:  # an artifact that was pushed by its digest
            yield None
            continue
        host, _, path = str(resource.get("resource_url")).partition("/")
        yield host, path.partition("@")[0].rpartition(":")[0] or path, tag, digest


def _push(host: object, path: object, tag: object, digest: object, *, registry: str) -> Push:
    host = registry or host
    if not isinstance(host, str) or not isinstance(path, str):
        raise InvalidInput("a push without the name of its registry or repository")
    origin_of(host)  # raises for what is no host: Reference's grammar is imgpkg's, which looks a host up in the end
    name = f"{host}/{path}"
    repository = Repository.parse(name)
    if (str(repository), repository.registry) != (name, host):
        raise InvalidInput(
            f"{name[:200]!r} is not the name of a registry and a repository in it",
            hint="say which registry this is: add ?registry=HOST to the address of the receiver",
        )
    return Push(repository, parse_tag(tag), parse_digest(digest))
