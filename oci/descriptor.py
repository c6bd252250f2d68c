"""Descriptors, platforms and media types (image-spec, descriptor.md and image-index.md; Docker's v2s2)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from msgspec import Struct, field

from oci.digest import Digest, parse_digest
from oci.errors import InvalidManifest, InvalidReference

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)
SCHEMA1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
NON_DISTRIBUTABLE_TYPES = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
)

_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}(?: ?;[\x20-\x7e]{{1,200}})?")
"""RFC 6838, section 4.2, with parameters."""

_MAX_SIZE = 1 << 53
"""Beyond this a JSON number is no exact integer everywhere; no blob comes near it."""


class Platform(Struct, frozen=True, order=True):
    """`os/architecture[/variant]`; `str()` renders it so."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise InvalidReference(f"{text!r} is not a platform", hint="write OS/ARCHITECTURE, such as linux/arm64")
        return cls(parts[0], parts[1], "".join(parts[2:]))

    @classmethod
    def from_dict(cls, value: Any, path: str) -> Platform:
        platform = as_object(value, path)
        system, architecture, variant, version = (
            as_text(platform.get(name), f"{path}.{name}") for name in ("os", "architecture", "variant", "os.version")
        )
        features = as_list(platform.get("os.features"), f"{path}.os.features")
        return cls(
            system, architecture, variant, version, tuple(as_text(each, f"{path}.os.features") for each in features)
        )

    def to_dict(self) -> dict[str, Any]:
        platform: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            platform["os.version"] = self.os_version
        if self.os_features:
            platform["os.features"] = list(self.os_features)
        if self.variant:
            platform["variant"] = self.variant
        return platform

    def matches(self, requested: Platform) -> bool:
        """Says whether an image of this platform serves a request; a request without a variant takes every variant."""
        same = (self.os, self.architecture) == (requested.os, requested.architecture)
        return same and requested.variant in ("", self.variant)


class Descriptor(Struct, frozen=True):
    """What one manifest says of another manifest or of a blob. `size` is in bytes; it is a promise until verified."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.digest, self.size, self.media_type))

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def is_manifest(self) -> bool:
        return self.media_type in MANIFEST_TYPES

    @property
    def names_manifest(self) -> bool:
        """As a child of an index: builders list cache layers there too, and what isn't said to be one is a blob."""
        return self.is_manifest or self.is_index

    @property
    def distributable(self) -> bool:
        return self.media_type not in NON_DISTRIBUTABLE_TYPES

    @classmethod
    def from_dict(cls, value: Any, path: str) -> Descriptor:
        """Raises InvalidManifest naming `path`, such as `layers[2].size`."""
        entry = as_object(value, path)
        size = entry.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _MAX_SIZE:
            raise InvalidManifest(f"{path}.size: expected a number of bytes, got {str(size)[:40]!r}")
        try:
            digest = parse_digest(entry.get("digest"))
        except InvalidReference as error:
            raise InvalidManifest(f"{path}.digest: {error.message}") from error
        platform = entry.get("platform")
        return cls(
            media_type=as_text(entry.get("mediaType", ""), f"{path}.mediaType"),
            digest=digest,
            size=size,
            platform=Platform.from_dict(platform, f"{path}.platform") if platform else None,
            annotations=as_annotations(entry.get("annotations"), f"{path}.annotations"),
            artifact_type=as_text(entry.get("artifactType", ""), f"{path}.artifactType"),
            urls=tuple(as_text(url, f"{path}.urls") for url in as_list(entry.get("urls"), f"{path}.urls")),
        )

    def to_dict(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.urls:
            entry["urls"] = list(self.urls)
        if self.annotations:
            entry["annotations"] = dict(self.annotations)
        if self.platform:
            entry["platform"] = self.platform.to_dict()
        if self.artifact_type:
            entry["artifactType"] = self.artifact_type
        return entry


_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes | str, *, once: bool = False) -> Any:
    """Returns what a JSON document says (RFC 8259), whoever wrote it. Raises ValueError for anything that one reader
    takes and another doesn't, or that breaks later: other bytes than UTF-8, NaN, a number that is infinite as a float,
    half a surrogate pair, levels that Python's stack can't hold and, with `once`, a key that stands twice."""
    try:
        text = data if isinstance(data, str) else data.decode()
        body = (_STRICT if once else DECODER).decode(text)
        if _HALF.search(text):
            json.dumps(body, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return body


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text[:40])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key stands twice in it")
    return body


DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
"""For a document that is read in pieces, whose reader looks after the rest."""
_STRICT = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_once)


def json_object(data: bytes, path: str, *, name: str = "") -> dict[str, Any]:
    """Returns the object that a JSON document is. Raises InvalidManifest, which calls it `name` where that isn't its
    path."""
    try:
        body = parse_json(data)
    except ValueError as error:
        raise InvalidManifest(f"{name or path} is not JSON") from error
    return as_object(body, path)


def as_object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidManifest(f"{path}: expected an object")
    return value


def as_list(value: Any, path: str) -> list[Any]:
    """`null` and an absent key count as an empty list: Go writes them for one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidManifest(f"{path}: expected a list")
    return value


def as_text(value: Any, path: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidManifest(f"{path}: expected text")
    return value


def as_media_type(value: Any, path: str) -> str:
    """Returns the text of a media type by the grammar of RFC 6838; an absent key, `null` and "" give ""."""
    text = as_text(value, path)
    if text and not _MEDIA_TYPE.fullmatch(text):
        raise InvalidManifest(f"{path}: {text[:100]!r} is not a media type")
    return text


def as_annotations(value: Any, path: str) -> dict[str, str]:
    if value is None:
        return {}
    return {key: as_text(text, f"{path}.{key}") for key, text in as_object(value, path).items()}
