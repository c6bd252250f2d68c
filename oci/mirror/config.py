"""`mirrors.yaml`: which repositories are mirrored where, by which rules, and when.

One typed tree, refused as a whole when any part of it isn't understood. `read_config` reads the file, and says what is
wrong with it by line; a program makes the same models itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from oci.errors import Denied, InvalidDocument, InvalidInput, InvalidReference, NotFound, StoreError, Unavailable
from oci.mirror import located
from oci.mirror.buckets import Bucket
from oci.mirror.located import Located
from oci.mirror.rules import STRICT, Policy
from oci.reference import (
    ARCHIVE_PREFIX,
    S3_PREFIX,
    ArchiveName,
    Reference,
    Repository,
    StoreName,
    parse_any,
    parse_store,
)
from oci.registry.credentials.hosts import canonical_host
from oci.registry.form import RegistryForm as RegistryOptions

_NAME = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
_SHOWN_PROBLEMS = 20


class Registry(RegistryOptions):
    """One registry: how it is reached, and under which name its login is kept. The login itself never stands here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, title="Registry")

    credentials: str = Field(
        default="",
        title="Credentials",
        description="Name of a Registry Credentials block, for runs on a worker. Empty, and on the command line: the "
        "environment and the docker config of the machine.",
        examples=["corp-mirror-writer"],
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        max_length=200,
    )
    images_at_a_time: int = Field(
        default=0,
        title="Images at a time",
        description="From and to this registry, over all workers together; 0 for no such limit.",
        ge=0,
        le=10_000,
    )


class MirrorSource(BaseModel):
    """Where images come from: one of repository, bundle and lock."""

    model_config = STRICT | ConfigDict(title="Mirror source")

    repository: str = Field(
        default="",
        title="Repository",
        description="REGISTRY/REPOSITORY, or oci:PATH for a layout folder; its tags are selected by `tags`.",
        examples=["registry.example/shop/web"],
        max_length=2000,
    )
    bundle: str = Field(
        default="",
        title="Bundle",
        description="One bundle with everything it lists, by tag or digest.",
        examples=["registry.example/shop/bundle:1.4.0"],
        max_length=2000,
    )
    lock: str = Field(
        default="",
        title="Lock",
        description="Path of an ImagesLock or BundleLock file, on the machine of the run.",
        examples=["/etc/transship/images.lock.yml"],
        max_length=2000,
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(map(bool, (self.repository, self.bundle, self.lock))) != 1:
            raise ValueError("give exactly one of repository, bundle and lock")
        try:
            if self.repository:
                parse_store(self.repository)
            if self.bundle:
                parse_any(self.bundle)
        except InvalidReference as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def store(self) -> StoreName | None:
        """The repository or folder that is read; None for a lock, which names its own."""
        if self.lock:
            return None
        return parse_store(self.repository) if self.repository else parse_any(self.bundle).repository

    @property
    def reference(self) -> Reference | None:
        """What a bundle source names; None for the other kinds."""
        return parse_any(self.bundle) if self.bundle else None

    def __str__(self) -> str:
        return self.repository or self.bundle or self.lock


class MirrorDestination(BaseModel):
    """Where images go: one of repository and archive."""

    model_config = STRICT | ConfigDict(title="Mirror destination")

    repository: str = Field(
        default="",
        title="Repository",
        description="REGISTRY/REPOSITORY, or oci:PATH for a layout folder; no tag.",
        examples=["registry.corp.example/mirror/shop"],
        max_length=2000,
    )
    archive: str = Field(
        default="",
        title="Archive",
        description="A tarball of everything that is selected: a path, or s3://BUCKET/KEY.",
        examples=["s3://handover/shop.tar"],
        max_length=2000,
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.repository) == bool(self.archive):
            raise ValueError("give exactly one of repository and archive")
        try:
            _ = self.store
        except InvalidReference as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def store(self) -> StoreName:
        if self.archive:
            return ArchiveName.of(self.archive.removeprefix(ARCHIVE_PREFIX))
        return parse_store(self.repository)

    def __str__(self) -> str:
        return str(self.store)


class Mirror(Policy):
    """One source, the places it is mirrored to, and the rules."""

    model_config = STRICT | ConfigDict(title="Mirror")

    name: str = Field(
        title="Name",
        description="Lower case letters, digits and hyphens; one mirror each.",
        json_schema_extra={"position": -3},
        examples=["shop-web"],
        pattern=_NAME,
        max_length=100,
    )
    source: MirrorSource = Field(
        title="Source", description="Where images come from.", json_schema_extra={"position": -2}
    )
    destinations: list[MirrorDestination] = Field(
        title="Destinations",
        description="Where they go. Several share one read of each blob.",
        json_schema_extra={"position": -1},
        min_length=1,
        max_length=32,
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        source = self.source
        stores = [destination.store for destination in self.destinations]
        if len(set(stores)) != len(stores):
            raise ValueError("a destination is named twice")
        if source.store in stores:
            raise ValueError("a repository can't be mirrored to itself")
        if self.platforms and not source.repository:
            raise ValueError("platforms can be chosen for a repository; a bundle or lock pins its images by digest")
        return self

    @property
    def registries(self) -> frozenset[str]:
        """The hosts that are named; what a lock or a bundle lists may be at others."""
        stores = [self.source.store, *(destination.store for destination in self.destinations)]
        return frozenset(store.registry for store in stores if isinstance(store, Repository))

    @property
    def buckets(self) -> frozenset[str]:
        """Of the object stores that its archives are in."""
        objects = [str(one) for one in self.destinations if S3_PREFIX in one.archive]
        return frozenset(name.partition(S3_PREFIX)[2].partition("/")[0] for name in objects)


class MirrorsConfig(BaseModel):
    """What a file of mirrors says."""

    model_config = STRICT | ConfigDict(title="Mirrors")

    version: int = Field(
        default=1, title="Version", description="Of this format: 1.", ge=1, le=1, json_schema_extra={"position": 1}
    )
    registries: dict[Annotated[str, Field(pattern=r"^[^/@\s]+$", max_length=300)], Registry] = Field(
        default={},
        title="Registries",
        description='How each host is reached, by its name with the port: {"corp:5000": {"credentials": "writer"}}',
        max_length=1000,
    )
    buckets: dict[Annotated[str, Field(pattern=r"^[^/@\s]+$", max_length=300)], Bucket] = Field(
        default={},
        title="Buckets",
        description='How the object store of s3://BUCKET/KEY is reached, by bucket: {"handover": {"s3_store": "corp"}}',
        max_length=1000,
    )
    defaults: Policy = Field(
        default=Policy(), title="Defaults", description="What each mirror says that doesn't say it itself."
    )
    mirrors: list[Mirror] = Field(
        default=[],
        title="Mirrors",
        description="What is mirrored.",
        max_length=10_000,
        json_schema_extra={"position": -1},
    )

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, data: Any) -> Any:
        return merge_defaults(data)

    @field_validator("registries")
    @classmethod
    def _canonical_hosts(cls, registries: dict[str, Registry]) -> dict[str, Registry]:
        return {canonical_host(host): registry for host, registry in registries.items()}

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [mirror.name for mirror in self.mirrors]
        twice = next((name for name in names if names.count(name) > 1), "") if len(set(names)) != len(names) else ""
        if twice:
            raise ValueError(f"two mirrors are named {twice!r}")
        return self

    def mirror(self, name: str) -> Mirror:
        """Raises InvalidInput when there is none of this name."""
        for mirror in self.mirrors:
            if mirror.name == name:
                return mirror
        raise InvalidInput(
            f"there is no mirror named {name!r}", hint=_did_you_mean(name, [m.name for m in self.mirrors])
        )

    def chosen(self, names: Sequence[str]) -> tuple[Mirror, ...]:
        """The named mirrors in their order in the file, or all of them when none is named."""
        wanted = {self.mirror(name).name for name in names}
        return tuple(mirror for mirror in self.mirrors if not names or mirror.name in wanted)

    def registry(self, host: str) -> Registry:
        return self.registries.get(canonical_host(host)) or Registry()


def merge_defaults(data: Any) -> Any:
    """Each mirror with the keys of `defaults` that it doesn't have itself. A key is taken whole: a mirror's `tags`
    replace the default ones, they aren't added to them."""
    if not isinstance(data, Mapping):
        return data
    defaults, mirrors = data.get("defaults"), data.get("mirrors")
    if isinstance(defaults, Policy):
        defaults = {name: getattr(defaults, name) for name in defaults.model_fields_set}
    if not isinstance(defaults, Mapping) or not isinstance(mirrors, list):
        return data
    return {**data, "mirrors": [{**defaults, **one} if isinstance(one, Mapping) else one for one in mirrors]}


def read_config(path: str) -> MirrorsConfig:
    """Raises InvalidDocument, naming the file, the line and the path of each thing that is wrong; NotFound or Denied
    for a file that can't be read."""
    operation = "reading the mirrors"
    try:
        with open(path, "rb") as file:
            data = file.read(located.SIZE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            "no such file", subject=path, operation=operation, hint="name the file of mirrors with -f"
        ) from error
    except OSError as error:
        kind: type[StoreError] = Denied if isinstance(error, PermissionError) else Unavailable
        raise kind(error.strerror or str(error), subject=path, operation=operation) from error
    return parse_config(data, path)


def parse_config(data: bytes, where: str) -> MirrorsConfig:
    """The configuration in `data`. Raises InvalidDocument."""
    found = located.read(data, where)
    if not isinstance(found.value, dict):
        raise InvalidDocument(
            f"{found.at(())}: expected a mapping with version and mirrors", hint="begin the file with `version: 1`"
        )
    if found.value.get("version") != 1:
        raise InvalidDocument(
            f"{found.at(('version',))}: version: expected 1, got {found.value.get('version', 'nothing')!r}",
            hint="begin the file with `version: 1`",
        )
    try:
        return MirrorsConfig.model_validate(found.value)
    except ValidationError as error:
        raise _invalid(found, error.errors(include_url=False)) from None


def json_schema() -> dict[str, Any]:
    """For editors: the format of the file, `x-` keys allowed everywhere; without what is for forms alone."""
    schema = MirrorsConfig.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        if model.get("additionalProperties") is False:
            model["patternProperties"] = {"^x-": {}}
        for field in model.get("properties", {}).values():
            field.pop("position", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _invalid(found: Located, problems: Sequence[ErrorDetails]) -> InvalidDocument:
    """What a mirror has from `defaults` is wrong there, once, and not in each mirror."""
    wrong_defaults = {problem["loc"][1:] for problem in problems if problem["loc"][:1] == ("defaults",)}
    lines = []
    for problem in problems:
        path = problem["loc"]
        if path[:1] == ("mirrors",) and path[:3] not in found.lines and len(path) > 2:
            if path[2:] in wrong_defaults:
                continue
            path = ("defaults", *path[2:]) if ("defaults", *path[2:3]) in found.lines else path
        line = f"{found.at(path)}: {_path(path)}: {_said(problem)}"
        if line not in lines:
            lines.append(line)
    shown = lines[:_SHOWN_PROBLEMS]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    return InvalidDocument("\n".join(shown), hint="`transship mirror schema` prints the format for editors")


def _said(problem: ErrorDetails) -> str:
    if problem["type"] == "extra_forbidden":
        known = list(_known_keys(problem["loc"]))
        hint = _did_you_mean(str(problem["loc"][-1]), known)
        return f"unknown key; {hint}" if hint else "unknown key"
    if problem["type"] == "string_type":
        return "expected text: put it in quotes"
    message = problem["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _known_keys(path: Sequence[str | int]) -> Iterator[str]:
    """The keys that a mapping at this path may have."""
    model: Any = MirrorsConfig
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else model
        model = next(iter(_models_in(annotation)), model)
    yield from model.model_fields


def _models_in(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known are {', '.join(known)}" if 0 < len(known) <= 20 else ""


def _path(path: Sequence[str | int]) -> str:
    """`mirrors[3].tags[0].semver`"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return re.sub(r"^\.", "", text) or "the file"
