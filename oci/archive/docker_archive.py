"""The archives of `docker save`, podman and skopeo (docker-archive): their own manifest.json, and layers that aren't
compressed (moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format").

Read, an image gets a manifest of OCI's types around the config and the layers that are there, byte for byte. The same
archive gives the same digest everywhere; it isn't the digest that the image had in a registry. Written, an archive has
no index, so an image is of one platform, and each layer is unpacked on its way.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from msgspec import Struct

from oci.archive.entry import ArchiveEntry, entry_of
from oci.descriptor import CONFIG_TYPES, OCI_CONFIG, OCI_MANIFEST, Descriptor, as_list, as_object, as_text, parse_json
from oci.digest import Chunk, Digest, digest_of, hex_of, is_digest
from oci.errors import IntegrityError, InvalidInput, InvalidManifest, InvalidReference
from oci.files import tar
from oci.files.decompress import decompressed
from oci.manifest import Manifest, parse_manifest
from oci.output import BY_UMASK, check_outputs, os_errors, replacing
from oci.reference import HUB, Reference, Repository

NAME = "manifest.json"
LIMIT = 4 << 20
"""Bytes of a manifest.json, and of a config, that are read."""

MOST_LAYERS = 100_000
"""Images and layers that one archive may list, each as often as it is listed."""

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_COMPRESSED = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
"""First bytes of layers that other programs (kaniko, crane) leave compressed, and what their media types end with."""

_SYMLINK_TARGET = slice(157, 257)
_OCTAL_LIMIT = 1 << 33


class DockerImage(Struct, frozen=True, kw_only=True):
    """One image of such an archive. `names` are those of `docker tag`: REPOSITORY:TAG."""

    manifest: Manifest
    names: tuple[str, ...] = ()


class Part(Struct, frozen=True):
    """Bytes of a member: `size` of them, and a function that reads them."""

    size: int
    read: Callable[[int], Iterator[bytes]]
    """From the beginning, so many."""


class Parsed(Struct, frozen=True, kw_only=True):
    """`members` are the names of those that hold a blob, by digest."""

    entries: list[ArchiveEntry]
    manifests: dict[Digest, Manifest]
    members: dict[Digest, str]


def parse(description: bytes, member: Callable[[str], Part | None]) -> Parsed | None:
    """Returns the images; `member` gives a regular file by its name. None for a manifest.json of another format.

    A layer that isn't compressed has the digest that the config gives it, which is proven when it is read; of a
    compressed one the bytes are hashed here. Raises InvalidManifest.
    """
    try:
        items = parse_json(description)
    except ValueError:
        return None
    if not isinstance(items, list) or not items:
        return None
    if not all(isinstance(item, dict) and "Config" in item for item in items):
        return None
    listed = len(items) + sum(len(item["Layers"]) for item in items if isinstance(item.get("Layers"), list))
    if listed > MOST_LAYERS:
        raise InvalidManifest(f"{NAME} lists {listed} images and layers, and {MOST_LAYERS} are the limit")
    parsed = Parsed(entries=[], manifests={}, members={})
    reader = _Reader(member)
    for number, item in enumerate(items):
        path = f"{NAME} [{number}]"
        manifest = _image(item, path, reader, parsed.members)
        parsed.manifests[manifest.digest] = manifest
        names = [as_text(name, f"{path}.RepoTags") for name in as_list(item.get("RepoTags"), f"{path}.RepoTags")]
        parsed.entries.extend(_entry(manifest.digest, path, name) for name in names or [""])
    return parsed


class _Reader:
    """Reads each member once, however often a manifest.json names it."""

    def __init__(self, member: Callable[[str], Part | None]) -> None:
        self._member = member
        self._configs: dict[str, tuple[Descriptor, list[Any]]] = {}
        self._layers: dict[str, tuple[str, Descriptor]] = {}

    def config(self, name: str, path: str) -> tuple[Descriptor, list[Any]]:
        """A config, and what it says that the layers are."""
        if name not in self._configs:
            data = _whole(self._required(name, path), path)
            try:
                body = as_object(parse_json(data), path)
            except ValueError as error:
                raise InvalidManifest(f"{path}: {name} is not JSON") from error
            root = as_object(body.get("rootfs") or {}, f"{path}.rootfs")
            listed = as_list(root.get("diff_ids"), f"{path}.rootfs.diff_ids")
            self._configs[name] = Descriptor(OCI_CONFIG, digest_of(data), len(data)), listed
        return self._configs[name]

    def layer(self, name: str, diff_id: Digest, path: str) -> Descriptor:
        if name not in self._layers:
            part = self._required(name, path)
            ending = _COMPRESSED.get(b"".join(part.read(min(2, part.size))), "")
            sha256 = hashlib.sha256()
            for chunk in part.read(part.size) if ending else ():
                sha256.update(chunk)
            digest = Digest(f"sha256:{sha256.hexdigest()}")
            self._layers[name] = ending, Descriptor(f"{_LAYER}{ending}", digest, part.size)
        ending, descriptor = self._layers[name]
        return descriptor if ending else Descriptor(_LAYER, diff_id, descriptor.size)

    def _required(self, name: str, path: str) -> Part:
        part = self._member(name)
        if part is None:
            raise InvalidManifest(f"{path}: {name[:200]!r} isn't in the archive", hint="save the image again")
        return part


def _image(item: dict[str, Any], path: str, reader: _Reader, members: dict[Digest, str]) -> Manifest:
    name = as_text(item.get("Config", ""), f"{path}.Config")
    config, diff_ids = reader.config(name, f"{path}.Config")
    members[config.digest] = name
    layers = as_list(item.get("Layers"), f"{path}.Layers")
    if len(diff_ids) != len(layers):
        raise InvalidManifest(f"{path}: {len(layers)} layers, and the config knows {len(diff_ids)}")
    descriptors = []
    for number, (layer, diff_id) in enumerate(zip(layers, diff_ids, strict=True)):
        where = f"{path}.Layers[{number}]"
        if not _is_digest(diff_id):
            raise InvalidManifest(f"{path}.Config.rootfs.diff_ids[{number}] is no digest")
        file = as_text(layer, where)
        descriptor = reader.layer(file, Digest(diff_id), where)
        members[descriptor.digest] = file
        descriptors.append(descriptor)
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_dict(),
        "layers": [descriptor.to_dict() for descriptor in descriptors],
    }
    return parse_manifest(json.dumps(body, separators=(",", ":")).encode(), OCI_MANIFEST)


def _whole(part: Part, path: str) -> bytes:
    if part.size > LIMIT:
        raise InvalidManifest(f"{path}: {part.size} bytes, and {LIMIT} are the limit")
    return b"".join(part.read(part.size))


def _entry(digest: Digest, path: str, name: str) -> ArchiveEntry:
    """A name without a tag is no name that an image can be loaded under."""
    try:
        reference = Reference.parse(name) if name else None
    except InvalidReference as error:
        raise InvalidManifest(f"{path}.RepoTags: {error.message}") from error
    return entry_of(
        digest,
        f"{path}.RepoTags",
        reference=f"{reference.repository}@{digest}" if reference else "",
        origin="",
        tag=reference.tag if reference else "",
        is_root_bundle=False,
    )


def link_target(name: str, header: bytes) -> str:
    """Returns the member that a symbolic link shows; `docker save` before 25 links layers that are there already."""
    target = header[_SYMLINK_TARGET].partition(b"\0")[0].decode(errors="replace")
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def docker_name(repository: Repository, tag: str) -> str:
    """Returns the name as docker shows it: Docker Hub's host is left out, and `library/`."""
    name = repository.path.removeprefix("library/") if repository.registry == HUB else str(repository)
    return f"{name}:{tag}"


def write_docker_archive(
    path: str,
    images: Sequence[DockerImage],
    read: Callable[[Descriptor], Iterator[Chunk]],
) -> int:
    """Writes all images into one file, and gives its bytes; a layer that several have is in it once. `read` streams a
    blob and proves it. The file has its name when it is complete.

    Raises InvalidInput for what docker can't load, IntegrityError for a layer that isn't what the config says, and
    StoreError.
    """
    check_outputs(path)
    with (
        os_errors(side="destination", store=path, operation="writing the archive"),
        replacing(path, BY_UMASK) as file,
    ):
        _write(file, images, read)
        return file.tell()


def _write(
    file: IO[bytes],
    images: Sequence[DockerImage],
    read: Callable[[Descriptor], Iterator[Chunk]],
) -> None:
    described: list[Mapping[str, Any]] = []
    written: set[str] = set()
    for image in images:
        config, diff_ids = _config_of(image.manifest, read)
        name = f"{hex_of(digest_of(config))}.json"
        if name not in written:
            written.add(name)
            file.write(tar.header(name, mode=0o644, size=len(config)) + config + tar.padding(len(config)))
        for layer, diff_id in zip(image.manifest.layers, diff_ids, strict=True):
            member = _member_of(diff_id)
            if member not in written:
                written.add(member)
                _write_layer(file, member, diff_id, decompressed(read(layer)))
        layers = [_member_of(diff_id) for diff_id in diff_ids]
        described.append({"Config": name, "RepoTags": list(image.names), "Layers": layers})
    body = json.dumps(described, separators=(",", ":")).encode()
    file.write(tar.header(NAME, mode=0o644, size=len(body)) + body + tar.padding(len(body)) + tar.END)


def _config_of(manifest: Manifest, read: Callable[[Descriptor], Iterator[Chunk]]) -> tuple[bytes, list[Digest]]:
    config = manifest.config
    if manifest.is_index or config is None or config.media_type not in CONFIG_TYPES or config.size > LIMIT:
        raise InvalidInput(
            f"{manifest.digest} is no image that docker can load: it has no image config",
            hint="write another format: --tar-format oci-layout",
        )
    data = b"".join(read(config))
    try:
        diff_ids = parse_json(data)["rootfs"]["diff_ids"]
    except (ValueError, TypeError, KeyError):
        diff_ids = None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers) or not all(map(_is_digest, diff_ids)):
        raise InvalidInput(
            f"{manifest.digest}: its config doesn't say what its layers are when they are unpacked",
            hint="write another format: --tar-format oci-layout",
        )
    return data, [Digest(diff_id) for diff_id in diff_ids]


def _member_of(diff_id: Digest) -> str:
    """A name that one block of a tar has room for, whatever the algorithm."""
    return f"{hex_of(diff_id)[:64]}.tar"


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and is_digest(value)


def _write_layer(file: IO[bytes], name: str, diff_id: Digest, pieces: Iterator[bytes]) -> None:
    """The size stands in the header, and is known in the end."""
    begin, size, proof = file.tell(), 0, hashlib.new(diff_id.partition(":")[0])
    file.write(bytes(tar.BLOCK))
    for piece in pieces:
        file.write(piece)
        proof.update(piece)
        size += len(piece)
    if proof.hexdigest() != hex_of(diff_id):
        raise IntegrityError(f"a layer unpacks to {proof.hexdigest()}, and the config says {diff_id}")
    file.write(tar.padding(size))
    end = file.tell()
    file.seek(begin)
    file.write(_header(name, size))
    file.seek(end)


def _header(name: str, size: int) -> bytes:
    """One block whatever the size: beyond 8 GiB as GNU tar writes it, in base 256, which docker and skopeo read."""
    block = bytearray(tar.header(name, mode=0o644, size=size if size < _OCTAL_LIMIT else 0))
    if size >= _OCTAL_LIMIT:
        block[124:136] = b"\x80" + size.to_bytes(11, "big")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
