"""`mirrors.yaml`: which repositories are mirrored where, by which rules, and when.

One typed tree, refused as a whole when any part of it isn't understood. `oci.mirror.reader` reads it from a file or a
mapping, and says what is wrong by line and path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec

from oci.archive.options import S3Options
from oci.errors import InvalidInput, did_you_mean
from oci.mirror.policy import CheckedOptions, Pattern, Policy
from oci.options import Options, option, required
from oci.prune.policy import check_patterns
from oci.reference import (
    ARCHIVE_PREFIX,
    ARCHIVE_TRANSPORTS,
    ArchiveName,
    Reference,
    Repository,
    StoreName,
    bucket_and_key,
    in_object_store,
    parse_any,
    parse_store,
)
from oci.registry.http.origin import canonical_host, check_hosts
from oci.registry.options import RegistryOptions
from oci.signatures.artifacts import check_policy

EXPLICIT: frozenset[str] = option(
    frozenset(), "Options that a file gives with the value of their default.", secret=True
)
"""They hold over the flags of a run, as others that are given do. A form gives every default: only a file has them."""

BLOCK = r"^(([a-z0-9-]+/)?[a-z0-9][a-z0-9-]*)?$"
"""The name of a block on a Prefect server, or nothing."""

Host = Annotated[str, msgspec.Meta(pattern=r"^[^/@\s]+\Z", max_length=300)]


class RegistryEntry(RegistryOptions):
    """One registry: how it is reached, and under which name its login is kept. The login itself never stands here.

    What isn't said comes from the flags or the form of the run."""

    credentials: str = option(
        "",
        "Name of a Registry Credentials block, for runs on a worker; docker-registry-credentials/NAME for one of "
        "prefect-docker. Empty, and on the command line: the environment and the docker config of the machine.",
        examples=["corp-mirror-writer"],
        pattern=BLOCK,
        max_length=400,
    )
    images_at_a_time: int = option(
        0, "From and to this registry, over all workers together; 0 for no such limit.", ge=0, le=10_000
    )
    explicit: frozenset[str] = EXPLICIT


class BucketEntry(S3Options):
    """How one bucket is reached, and under which name its keys are kept. The keys themselves never stand here.

    What isn't said comes from the S3 Store block, or else from the environment and the AWS config files."""

    s3_store: str = option(
        "",
        "Name of an S3 Store block, for runs on a worker. Empty, and on the command line: AWS_* variables, ~/.aws, a "
        "role.",
        title="S3 Store",
        examples=["corp-archives"],
        pattern=BLOCK,
        max_length=400,
    )
    explicit: frozenset[str] = EXPLICIT


class MirrorSource(CheckedOptions):
    """Where images come from: one of repository, namespace, bundle and lock."""

    repository: str = option(
        "",
        "REGISTRY/REPOSITORY, or oci:PATH for a layout folder; its tags are selected by `tags`.",
        examples=["registry.example/shop/web"],
        max_length=2000,
    )
    namespace: str = option(
        "",
        "REGISTRY or REGISTRY/PATH: each repository below it that the registry's catalog lists is mirrored by the "
        "same rules, to destinations with {path} or {name}.",
        examples=["registry.example/shop"],
        max_length=2000,
    )
    repositories: tuple[Pattern, ...] = option(
        (),
        "Of a namespace only those whose path below it matches one of these regular expressions from end to end.",
        examples=[["web", "tools/.*"]],
        max_length=100,
        check=check_patterns,
    )
    bundle: str = option(
        "",
        "One bundle with everything it lists, by tag or digest.",
        examples=["registry.example/shop/bundle:1.4.0"],
        max_length=2000,
    )
    lock: str = option(
        "",
        "Path of an ImagesLock or BundleLock file, on the machine of the run.",
        examples=["/etc/transship/images.lock.yml"],
        max_length=2000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(map(bool, (self.repository, self.namespace, self.bundle, self.lock))) != 1:
            raise InvalidInput("give exactly one of repository, namespace, bundle and lock")
        if self.repositories and not self.namespace:
            raise InvalidInput("repositories are chosen of a namespace")
        _ = self.store, self.within

    @property
    def within(self) -> Repository | None:
        """The registry and the path of a namespace, which is empty for a whole registry; None for the other kinds."""
        if not self.namespace:
            return None
        sample = Repository.parse(f"{self.namespace.rstrip('/')}/xx")
        below = self.namespace.rstrip("/").partition("/")[2]
        return Repository(sample.registry, sample.path.removesuffix("/xx") if below else "")

    @property
    def store(self) -> StoreName | None:
        """The repository or folder that is read; None for a lock or a namespace, which name their own."""
        if self.lock or self.namespace:
            return None
        return parse_store(self.repository) if self.repository else parse_any(self.bundle).repository

    @property
    def reference(self) -> Reference | None:
        """What a bundle source names; None for the other kinds."""
        return parse_any(self.bundle) if self.bundle else None

    def __str__(self) -> str:
        return self.repository or self.namespace or self.bundle or self.lock


_PLACE = re.compile(r"\{([^{}]*)\}")
_PLACES = ("registry", "path", "name", "tag")
_SAMPLE = "x0sample0x"


class Template(StoreName, msgspec.Struct, frozen=True):
    """The name of a destination with places that nothing has filled yet: the repositories of its source are unknown."""

    text: str

    def __str__(self) -> str:
        return self.text


class MirrorDestination(Options):
    """Where images go: one of repository and archive."""

    repository: str = option(
        "",
        "REGISTRY/REPOSITORY, or oci:PATH for a layout folder; no tag. {registry}, {path} and {name} stand for the "
        "host of the source, its whole path, and the last part of that; {tag} for that of a bundle.",
        examples=["registry.corp.example/mirror/shop"],
        max_length=2000,
    )
    archive: str = option(
        "",
        "A tarball of everything that is selected: a path, or s3://BUCKET/KEY, with the same places.",
        examples=["s3://handover/shop.tar"],
        max_length=2000,
    )

    def __post_init__(self) -> None:
        if bool(self.repository) == bool(self.archive):
            raise InvalidInput("give exactly one of repository and archive")
        if self.archive.startswith(ARCHIVE_TRANSPORTS):
            form = self.archive.partition(":")[0]
            raise InvalidInput(f"a mirror writes no {form}, but archives in imgpkg's form", hint="give the path alone")
        unknown = [place for place in _PLACE.findall(str(self)) if place not in _PLACES]
        if unknown:
            raise InvalidInput(f"{{{unknown[0]}}} has no meaning: write {{registry}}, {{path}}, {{name}} or {{tag}}")
        _ = self.store

    @property
    def has_places(self) -> bool:
        return bool(_PLACE.search(self.archive or self.repository))

    def filled(self, source: StoreName, tag: str = "") -> MirrorDestination:
        """With what the places stand for. A folder has no host, and its name for a path; {tag} stays without a tag."""
        path = source.path if isinstance(source, Repository) else os.path.basename(str(source))
        values = {"registry": source.registry.replace(":", "-"), "path": path, "name": path.rpartition("/")[2]}
        values["tag"] = tag or "{tag}"
        fill = partial(_PLACE.sub, lambda match: values[match[1]])
        return MirrorDestination(repository=fill(self.repository), archive=fill(self.archive))

    def may_be(self, name: StoreName) -> bool:
        """Whether the destination is `name`, or can be for one of the repositories of a namespace."""
        if not self.has_places:
            return name == self.store
        return re.fullmatch(re.escape(str(self.store)).replace(_SAMPLE, ".+"), str(name)) is not None

    @property
    def store(self) -> StoreName:
        """For a destination with places, what a sample makes of them."""
        text = _PLACE.sub(_SAMPLE, self.archive.removeprefix(ARCHIVE_PREFIX) or self.repository)
        return ArchiveName.of(text) if self.archive else parse_store(text)

    @property
    def name(self) -> StoreName:
        return Template(self.archive or self.repository) if self.has_places else self.store

    def __str__(self) -> str:
        return str(self.name)


class Mirror(Policy):
    """One source, the places it is mirrored to, and the rules."""

    name: str = required(
        "Lower case letters, digits and hyphens; each mirror has its own.",
        examples=["shop-web"],
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length=100,
    )
    source: MirrorSource = required("Where images come from.")
    destinations: tuple[MirrorDestination, ...] = required(
        "Where they go. Several share one read of each blob.", min_length=1, max_length=32
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        source = self.source.store
        if source is not None:
            tag = self.source.reference.tag if self.source.reference else ""
            filled = tuple(each.filled(source, tag) for each in self.destinations)
            msgspec.structs.force_setattr(self, "destinations", filled)
        for each in self.destinations:
            if each.has_places != bool(self.source.namespace) or "{tag}" in str(each):
                places = "a namespace needs {path} or {name}, {tag} is for a bundle with one, and a lock has no places"
                raise InvalidInput(f"the destination {each} doesn't fit the source: {places}")
        stores = [destination.store for destination in self.destinations]
        if len(set(stores)) != len(stores):
            raise InvalidInput("a destination is named twice")
        check_policy(self.policy, required=self.require_signatures)
        sample = Repository.parse(f"{self.source.namespace.rstrip('/') or 'x'}/{_SAMPLE}")
        if source in stores or sample in [each.filled(sample).store for each in self.destinations]:
            raise InvalidInput("a repository can't be mirrored to itself")
        if self.platforms and (self.source.bundle or self.source.lock):
            raise InvalidInput("platforms can be chosen for a repository; a bundle or lock pins its images by digest")

    def concerns(self, names: Collection[str]) -> bool:
        """Says whether one of the names is its source, or a tag of it."""
        source = self.source
        prefix = f"{source.within}".rstrip("/") + "/" if source.namespace else f"{source.store}:"
        whole, has_tags = (str(source), str(source.reference)), not (source.bundle or source.lock)
        return any(name in whole or (has_tags and name.startswith(prefix)) for name in names)

    def name_of(self, tag: str) -> str:
        """Returns the name of a tag of the source in lists of failures: HOST/REPOSITORY:TAG, and for a bundle its
        reference as the file has it."""
        reference = self.source.reference
        return str(reference) if reference is not None else f"{self.source.store}:{tag}"

    def of(self, repository: Repository) -> Mirror:
        """The same for one repository of the namespace, named `NAME/PATH`: no file can give such a name."""
        within = self.source.within
        below = repository.path.removeprefix(f"{within.path}/" if within and within.path else "")
        source = MirrorSource(repository=str(repository))
        return self.with_(name=f"{self.name}/{below}", source=source, destinations=self.destinations)

    @property
    def registries(self) -> frozenset[str]:
        """The hosts that are named; what a lock or a bundle lists may be at others."""
        stores = [self.source.store, self.source.within, *(destination.store for destination in self.destinations)]
        return frozenset(store.registry for store in stores if isinstance(store, Repository))

    @property
    def buckets(self) -> frozenset[str]:
        """Of the object stores that its archives are in."""
        locations = [each.archive.removeprefix(ARCHIVE_PREFIX) for each in self.destinations]
        return frozenset(bucket_and_key(location)[0] for location in locations if in_object_store(location))


class MirrorsConfig(CheckedOptions):
    """What a file of mirrors says."""

    version: int = option(1, "Of this format: 1.", ge=1, le=1, group="file")
    registries: dict[Host, RegistryEntry] = option(
        {},
        'How each host is reached, by its name with the port: {"corp:5000": {"credentials": "writer"}}',
        max_length=1000,
        check=check_hosts,
    )
    buckets: dict[Host, BucketEntry] = option(
        {},
        'How the object store of s3://BUCKET/KEY is reached, by bucket: {"handover": {"s3_store": "corp"}}',
        max_length=1000,
    )
    defaults: Policy = option(Policy(), "What each mirror says that doesn't say it itself.")
    mirrors: tuple[Mirror, ...] = option((), "What is mirrored.", max_length=10_000)
    from_file: bool = option(False, "It was read from a file of this machine.", title="From a file", secret=True)
    """Said by `read_config` alone: a secret field is no part of a file, a form or a deployment's parameters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        others = set[str]()
        for number, mirror in enumerate(self.mirrors):
            names = {mirror.name, *(str(each) for each in mirror.destinations if each.archive)}
            if again := names & others:
                verb = "are named" if mirror.name in again else "write"
                raise InvalidInput(f"mirrors[{number}]: two mirrors {verb} {min(again)!r}")
            others |= names

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> MirrorsConfig:
        from oci.mirror.reader import make_config  # noqa: PLC0415 - the reader imports this module

        return make_config(values)

    @classmethod
    def form(cls) -> dict[str, Any]:
        from oci.mirror.reader import schema  # noqa: PLC0415

        return schema(cls)

    def mirror(self, name: str) -> Mirror:
        """Raises InvalidInput when no mirror has this name."""
        for mirror in self.mirrors:
            if mirror.name == name:
                return mirror
        raise InvalidInput(
            f"there is no mirror named {name!r}", hint=did_you_mean(name, [mirror.name for mirror in self.mirrors])
        )

    def chosen(self, names: Sequence[str]) -> tuple[Mirror, ...]:
        """The named mirrors in their order in the file, or all of them when none is named."""
        chosen = {self.mirror(name).name for name in names}
        return tuple(mirror for mirror in self.mirrors if not names or mirror.name in chosen)

    @property
    def by_host(self) -> Mapping[str, RegistryEntry]:
        """The registries by the normal form of their hosts."""
        return {canonical_host(host): registry for host, registry in self.registries.items()}

    @property
    def credentials(self) -> tuple[str, ...]:
        """The names of the blocks that its registries' logins are in, each once."""
        return tuple(dict.fromkeys(each.credentials for each in self.registries.values() if each.credentials))

    def alone(self, mirror: Mirror) -> MirrorsConfig:
        """A configuration of this mirror, with the buckets and registries that it may meet. A bundle or a lock can list
        images of any registry, so such a mirror takes all of them along."""
        everywhere = mirror.source.lock or mirror.source.bundle
        hosts = {canonical_host(host) for host in mirror.registries}
        return MirrorsConfig(
            registries={
                host: registry
                for host, registry in self.registries.items()
                if everywhere or canonical_host(host) in hosts
            },
            buckets={name: bucket for name, bucket in self.buckets.items() if name in mirror.buckets},
            mirrors=(mirror,),
        )
