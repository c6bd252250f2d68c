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
from oci.archive.open import Stretch
from oci.descriptor import (
    CONFIG_TYPES,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    as_list,
    as_object,
    as_text,
    json_object,
    parse_json,
)
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


class Parsed(Struct, frozen=True, kw_only=True):
    """What an archive holds; `blobs` are the members that hold configs and layers, by digest."""

    entries: list[ArchiveEntry]
    manifests: dict[Digest, Manifest]
    blobs: dict[Digest, Stretch]


def parse(description: bytes, member: Callable[[str], Stretch | None]) -> Parsed | None:
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
    images = _Images(member)
    parsed = Parsed(entries=[], manifests={}, blobs=images.blobs)
    for number, item in enumerate(items):
        path = f"{NAME} [{number}]"
        manifest = images.manifest(item, path)
        parsed.manifests[manifest.digest] = manifest
        names = [as_text(name, f"{path}.RepoTags") for name in as_list(item.get("RepoTags"), f"{path}.RepoTags")]
        if not names:
            parsed.entries.append(ArchiveEntry(digest=manifest.digest, reference=""))
        for name in names:
            try:
                reference = Reference.parse(name)
            except InvalidReference as error:
                raise InvalidManifest(f"{path}.RepoTags: {error.message}") from error
            text = f"{reference.repository}@{manifest.digest}"
            entry = entry_of(
                manifest.digest, f"{path}.RepoTags", reference=text, origin="", tag=reference.tag, is_root_bundle=False
            )
            parsed.entries.append(entry)
    return parsed


class _Images:
    """Makes manifests, and reads each member once, however often a manifest.json names it."""

    def __init__(self, member: Callable[[str], Stretch | None]) -> None:
        self._member = member
        self._configs: dict[str, tuple[Descriptor, list[Any]]] = {}
        self._layers: dict[str, tuple[str, Descriptor, Stretch]] = {}
        self.blobs: dict[Digest, Stretch] = {}

    def manifest(self, item: dict[str, Any], path: str) -> Manifest:
        name = as_text(item.get("Config", ""), f"{path}.Config")
        config, diff_ids = self._config(name, f"{path}.Config")
        layers = as_list(item.get("Layers"), f"{path}.Layers")
        if len(diff_ids) != len(layers):
            raise InvalidManifest(f"{path}: {len(layers)} layers, and the config knows {len(diff_ids)}")
        descriptors = []
        for number, (layer, diff_id) in enumerate(zip(layers, diff_ids, strict=True)):
            where = f"{path}.Layers[{number}]"
            if not (isinstance(diff_id, str) and is_digest(diff_id)):
                raise InvalidManifest(f"{path}.Config.rootfs.diff_ids[{number}] is no digest")
            descriptors.append(self._layer(as_text(layer, where), Digest(diff_id), where))
        body = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.to_dict(),
            "layers": [descriptor.to_dict() for descriptor in descriptors],
        }
        return parse_manifest(json.dumps(body, separators=(",", ":")).encode(), OCI_MANIFEST)

    def _config(self, name: str, path: str) -> tuple[Descriptor, list[Any]]:
        """Returns a config, and what it says that the layers are."""
        if name not in self._configs:
            stretch = self._stretch(name, path)
            if stretch.size > LIMIT:
                raise InvalidManifest(f"{path}: {stretch.size} bytes, and {LIMIT} are the limit")
            data = stretch.bytes(LIMIT)
            body = json_object(data, path, name=f"{path}: {name}")
            root = as_object(body.get("rootfs") or {}, f"{path}.rootfs")
            listed = as_list(root.get("diff_ids"), f"{path}.rootfs.diff_ids")
            self._configs[name] = Descriptor(OCI_CONFIG, digest_of(data), len(data)), listed
            self.blobs[self._configs[name][0].digest] = stretch
        return self._configs[name]

    def _layer(self, name: str, diff_id: Digest, path: str) -> Descriptor:
        if name not in self._layers:
            stretch = self._stretch(name, path)
            head = b"".join(stretch.reader.read(stretch.offset, min(2, stretch.size)))
            ending = _COMPRESSED.get(head, "")
            sha256 = hashlib.sha256()
            for chunk in stretch.reader.read(stretch.offset, stretch.size) if ending else ():
                sha256.update(chunk)
            digest = Digest(f"sha256:{sha256.hexdigest()}")
            self._layers[name] = ending, Descriptor(f"{_LAYER}{ending}", digest, stretch.size), stretch
        ending, descriptor, stretch = self._layers[name]
        layer = descriptor if ending else Descriptor(_LAYER, diff_id, descriptor.size)
        self.blobs[layer.digest] = stretch
        return layer

    def _stretch(self, name: str, path: str) -> Stretch:
        stretch = self._member(name)
        if stretch is None:
            raise InvalidManifest(f"{path}: {name[:200]!r} isn't in the archive", hint="save the image again")
        return stretch


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
    described: list[Mapping[str, Any]] = []
    written: set[str] = set()
    with (
        os_errors(side="destination", store=path, operation="writing the archive"),
        replacing(path, BY_UMASK) as file,
    ):
        for image in images:
            config, diff_ids = _config_of(image.manifest, read)
            name = f"{hex_of(digest_of(config))}.json"
            if name not in written:
                written.add(name)
                file.write(tar.header(name, mode=0o644, size=len(config)) + config + tar.padding(len(config)))
            # Names that one block of a tar has room for, whatever the algorithm.
            members = [f"{hex_of(diff_id)[:64]}.tar" for diff_id in diff_ids]
            for layer, diff_id, member in zip(image.manifest.layers, diff_ids, members, strict=True):
                if member not in written:
                    written.add(member)
                    _write_layer(file, member, diff_id, decompressed(read(layer)))
            described.append({"Config": name, "RepoTags": list(image.names), "Layers": members})
        body = json.dumps(described, separators=(",", ":")).encode()
        file.write(tar.header(NAME, mode=0o644, size=len(body)) + body + tar.padding(len(body)) + tar.END)
        return file.tell()


def _config_of(manifest: Manifest, read: Callable[[Descriptor], Iterator[Chunk]]) -> tuple[bytes, list[Digest]]:
    config = manifest.config
    if manifest.is_index or config is None or config.media_type not in CONFIG_TYPES or config.size > LIMIT:
        raise InvalidInput(
            f"{manifest.digest} is no image that docker can load: it has no image config",
            hint="write another format: --tar-format oci-layout",
        )
    data = b"".join(read(config))
    listed = manifest.diff_ids(data)
    diff_ids = [diff_id for diff_id in listed or () if diff_id]
    if listed is None or len(diff_ids) != len(manifest.layers):
        raise InvalidInput(
            f"{manifest.digest}: its config doesn't say what its layers are when they are unpacked",
            hint="write another format: --tar-format oci-layout",
        )
    return data, diff_ids


def _write_layer(file: IO[bytes], name: str, diff_id: Digest, pieces: Iterator[bytes]) -> None:
    """Writes the header, in which the size stands, when the size is known: in the end. It is one block whatever the
    size: beyond 8 GiB as GNU tar writes it, in base 256, which docker and skopeo read."""
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
    block = bytearray(tar.header(name, mode=0o644, size=size if size < _OCTAL_LIMIT else 0))
    if size >= _OCTAL_LIMIT:
        block[124:136] = b"\x80" + size.to_bytes(11, "big")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    file.seek(begin)
    file.write(block)
    file.seek(end)
