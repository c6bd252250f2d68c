"""`manifest.json` of imgpkg's tarball: every manifest and config as text, and which layers belong to them.

Of a stranger's file one entry is decoded at a time, so that memory doesn't grow with its size: a sparse file of 900 MiB
costs nothing, and what is decoded is bounded by ENTRY_LIMIT.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from oci.archive.entry import ROOT_LABEL, ArchiveEntry, entry_of, refused_name
from oci.descriptor import DECODER, Descriptor, as_list, as_media_type, as_object
from oci.digest import Digest, digest_of, parse_digest
from oci.errors import InvalidManifest, InvalidReference, TransshipError
from oci.manifest import NESTING_LIMIT, Manifest, parse_manifest

NAME = "manifest.json"
LIMIT = 1 << 30
"""Bytes of a manifest.json that is read or written: half a million images."""

ENTRY_LIMIT = 16 << 20
"""Bytes of one entry, an image or an index with its children, that is read or written."""

ENTRIES_LIMIT = 1_000_000

_LAYER_TYPES = ("tar", "tar.gzip", "tar+gzip", "tar+zstd")
_OTHER_FORMAT = "give an archive that imgpkg or transship wrote, or what `docker save` wrote, whole"
_AS_LAYOUT = "write an OCI-layout archive: --tar-format oci-layout"
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_SPACE = re.compile(r"[ \t\r\n]*")
_LAYER = re.compile(r"sha256-[0-9a-f]{64}\.tar\.gz")


class ManifestJson(Struct):
    """What a manifest.json says: its entries in order, and everything they are made of, proven by digest."""

    entries: list[ArchiveEntry] = field(default_factory=list)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    configs: dict[Digest, bytes] = field(default_factory=dict)
    layers: dict[Digest, Descriptor] = field(default_factory=dict)
    """Layers, and whatever else indexes list that is no manifest; each once."""


def member_name(layer: Digest) -> str:
    """The suffix is always the same, whatever the layer is."""
    return f"{layer.replace(':', '-')}.tar.gz"


def is_layer(name: str) -> bool:
    return _LAYER.fullmatch(name) is not None


def render(
    entries: Iterable[ArchiveEntry], manifests: Mapping[Digest, Manifest], configs: Mapping[Digest, bytes]
) -> bytes:
    """Returns the bytes that imgpkg writes for the same images. Raises InvalidManifest for text that isn't UTF-8, which
    no JSON string can hold, and beyond the limits that `parse` has."""

    def sort_key(entry: ArchiveEntry) -> tuple[str, str, str]:
        manifest = manifests[entry.digest]
        config = manifest.config
        key = entry.digest if manifest.is_index or config is None else f"{entry.digest}/{config.digest}"
        return key, entry.tag, entry.reference

    listed = sorted(entries, key=sort_key)
    if len(listed) > ENTRIES_LIMIT:
        raise InvalidManifest(f"{NAME} can't list more than {ENTRIES_LIMIT} images", hint="make several archives")
    rendered = []
    sizes: dict[Digest, int] = {}
    for entry in listed:
        if _size_below(entry.digest, manifests, sizes) > ENTRY_LIMIT:
            raise InvalidManifest(f"{entry.digest} takes more than {ENTRY_LIMIT} bytes in {NAME}", hint=_AS_LAYOUT)
        if manifests[entry.digest].is_index:
            element = {"ImageIndex": _index(entry, manifests, configs, entry.digest), "Image": None}
        else:
            element = {"ImageIndex": None, "Image": _image(entry, manifests[entry.digest], configs)}
        text = json.dumps(element, ensure_ascii=False, separators=(",", ":"))
        for sign, escape in _ESCAPES.items():
            text = text.replace(sign, escape)
        rendered.append(text.encode())
        if len(rendered[-1]) > ENTRY_LIMIT:
            raise InvalidManifest(
                f"{entry.digest} takes {len(rendered[-1])} bytes in {NAME}, and {ENTRY_LIMIT} are the limit",
                hint=_AS_LAYOUT,
            )
    data = b"[" + b",".join(rendered) + b"]"
    if len(data) > LIMIT:
        raise InvalidManifest(f"{NAME} has {len(data)} bytes, and {LIMIT} are the limit", hint="make several archives")
    return data


def parse(chunks: Iterable[bytes]) -> ManifestJson:
    """Reads what imgpkg, or anything like it, wrote: keys in any case, unknown ones passed over, missing ones empty.

    Raises InvalidManifest, naming the path inside, for text that doesn't have the digest that it is said to have.
    """
    document = ManifestJson()
    number = -1
    for number, entry in enumerate(_Items(chunks)):
        if number == ENTRIES_LIMIT:
            raise InvalidManifest(f"{NAME} lists more than {ENTRIES_LIMIT} images")
        path = f"{NAME} [{number}]"
        body = _keys(entry, path)
        for name, read in (("ImageIndex", _read_index), ("Image", _read_image)):
            if body.get(name.lower()) is not None:
                item = _keys(body[name.lower()], f"{path}.{name}")
                document.entries.append(read(document, item, f"{path}.{name}"))
    if number >= 0 and not document.entries:
        raise InvalidManifest(f"{NAME} lists no image as imgpkg writes it", hint=_OTHER_FORMAT)
    return document


class _Items:
    """Decodes the objects of a JSON list one by one. Raises InvalidManifest for anything else."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._texts = codecs.iterdecode(chunks, "utf-8")
        self._text = ""
        self._at = 0

    def __iter__(self) -> Iterator[Any]:
        try:
            if self._sign() != "[":
                raise InvalidManifest(f"{NAME}: expected a list", hint=_OTHER_FORMAT)
            sign = self._sign()
            while sign != "]":
                if sign != "{":
                    raise InvalidManifest(f"{NAME}: expected a list of objects", hint=_OTHER_FORMAT)
                self._at -= 1
                yield self._decoded()
                sign = self._sign()
                if sign == ",":
                    sign = self._sign()
                    if sign == "]":
                        raise ValueError("a comma too many")  # noqa: TRY301 - as all other damage
                elif sign != "]":
                    raise ValueError("a comma is missing")  # noqa: TRY301
            if self._sign():
                raise ValueError("something follows the list")  # noqa: TRY301
        except (ValueError, RecursionError) as error:
            raise InvalidManifest(f"{NAME} is not JSON", hint=_OTHER_FORMAT) from error

    def _sign(self) -> str:
        """Takes the next character that isn't space; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                self._at += 1
                return self._text[self._at - 1]
            if not self._more():
                return ""

    def _decoded(self) -> Any:
        while True:
            try:
                item, self._at = DECODER.raw_decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > ENTRY_LIMIT:
                    raise InvalidManifest(f"{NAME}: an entry has more than {ENTRY_LIMIT} bytes") from None
                if not self._more():
                    raise
            else:
                return item

    def _more(self) -> bool:
        """Doubles the text that is left, so that an item is decoded anew a few times only. False at the end."""
        parts = [self._text[self._at :]]
        target, length = max(1, len(parts[0])), 0
        while length < target and (text := next(self._texts, None)) is not None:
            parts.append(text)
            length += len(text)
        self._text, self._at = "".join(parts), 0
        return length > 0


def _size_below(digest: Digest, manifests: Mapping[Digest, Manifest], sizes: dict[Digest, int]) -> int:
    """Bytes, at least, that a manifest and those below it take where each is written as often as it is listed."""
    if digest not in sizes:
        manifest = manifests[digest]
        below = (_size_below(child.digest, manifests, sizes) for child in manifest.child_manifests)
        sizes[digest] = len(manifest.raw) + sum(below)
    return sizes[digest]


def _index(
    entry: ArchiveEntry, manifests: Mapping[Digest, Manifest], configs: Mapping[Digest, bytes], digest: Digest
) -> dict[str, Any]:
    index = manifests[digest]
    children = [manifests[child.digest] for child in index.child_manifests]
    images = [_image(entry, child, configs) for child in children if not child.is_index]
    indexes = [_index(entry, manifests, configs, child.digest) for child in children if child.is_index]
    return {
        "Refs": [_at(entry, digest)],
        "Images": images or None,
        "Indexes": indexes or None,
        "MediaType": index.media_type,
        "Digest": digest,
        "Raw": _text(index.raw, digest),
        **_marks(entry),
    }


def _image(entry: ArchiveEntry, manifest: Manifest, configs: Mapping[Digest, bytes]) -> dict[str, Any]:
    config = manifest.config
    raw_config = configs[config.digest] if config else b""
    diff_ids = manifest.diff_ids(raw_config) or (None,) * len(manifest.layers)
    layers = [
        {
            "MediaType": as_media_type(layer.media_type, f"{manifest.digest} layers[{number}].mediaType"),
            "Digest": layer.digest,
            "DiffID": diff_id if diff_id and layer.media_type.endswith(_LAYER_TYPES) else "",
            "Size": layer.size,
        }
        for number, (layer, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True))
    ]
    return {
        "Refs": [_at(entry, manifest.digest)],
        "Layers": layers or None,
        "Config": {"Digest": config.digest if config else "", "Raw": _text(raw_config, manifest.digest)},
        "Manifest": {
            "MediaType": manifest.media_type,
            "Digest": manifest.digest,
            "Raw": _text(manifest.raw, manifest.digest),
        },
        **_marks(entry),
    }


def _marks(entry: ArchiveEntry) -> dict[str, Any]:
    return {
        "Tag": entry.tag,
        "OrigRef": entry.origin,
        "Labels": {ROOT_LABEL: ""} if entry.is_root_bundle else None,
    }


def _at(entry: ArchiveEntry, digest: Digest) -> str:
    """Children are where their index is."""
    return f"{entry.reference.partition('@')[0]}@{digest}"


def _text(raw: bytes, digest: Digest) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidManifest(
            f"{digest}: the manifest or its config isn't UTF-8, and imgpkg's format holds them as text",
            hint=_AS_LAYOUT,
        ) from error


def _read_index(document: ManifestJson, body: dict[str, Any], path: str, depth: int = 0) -> ArchiveEntry:
    if depth > NESTING_LIMIT:
        raise InvalidManifest(f"{path}: nested deeper than {NESTING_LIMIT} levels")
    index = _proven(body, path)
    for child, where in _items(body, "Images", path):
        _read_image(document, child, where)
    for child, where in _items(body, "Indexes", path):
        _read_index(document, child, where, depth + 1)
    document.manifests[index.digest] = index
    document.layers.update({child.digest: child for child in index.child_blobs})
    return _entry(body, path, index)


def _read_image(document: ManifestJson, body: dict[str, Any], path: str) -> ArchiveEntry:
    manifest = _proven(_keys(body.get("manifest"), f"{path}.Manifest"), f"{path}.Manifest")
    document.manifests[manifest.digest] = manifest
    if manifest.config is not None:
        config = _raw(_keys(body.get("config"), f"{path}.Config"), f"{path}.Config")
        if digest_of(config) != manifest.config.digest:
            raise InvalidManifest(f"{path}.Config: the text doesn't have the digest {manifest.config.digest}")
        document.configs[manifest.config.digest] = config
    # imgpkg reads layers by these entries, and this program by the manifest: both must be able to.
    for layer, where in _items(body, "Layers", path):
        as_media_type(layer.get("mediatype"), f"{where}.MediaType")
        for key in ("Digest", "DiffID"):
            digest = layer.get(key.lower())
            try:
                if digest not in (None, ""):
                    parse_digest(digest)
            except InvalidReference as error:
                raise refused_name(f"{where}.{key}", error) from error
    document.layers.update({layer.digest: layer for layer in manifest.layers})
    return _entry(body, path, manifest)


def _entry(body: dict[str, Any], path: str, manifest: Manifest) -> ArchiveEntry:
    """Imgpkg writes one reference. Where another program wrote several, the first counts, and all are checked."""
    labels = body.get("labels") or {}
    entries = [
        entry_of(
            manifest.digest,
            path,
            reference=reference,
            origin=body.get("origref"),
            tag=body.get("tag"),
            is_root_bundle=isinstance(labels, dict) and ROOT_LABEL in labels,
        )
        for reference in as_list(body.get("refs"), f"{path}.Refs") or [""]
    ]
    return entries[0]


def _proven(body: dict[str, Any], path: str) -> Manifest:
    raw = _raw(body, path)
    media_type = as_media_type(body.get("mediatype"), f"{path}.MediaType")
    try:
        manifest = parse_manifest(raw, media_type, limit=ENTRY_LIMIT)
    except TransshipError as error:
        raise InvalidManifest(f"{path}: {error.message}", hint=error.hint) from error
    if manifest.digest != body.get("digest"):
        raise InvalidManifest(
            f"{path}: the text has {manifest.digest}, not {str(body.get('digest'))[:80]}",
            hint="the archive is damaged: make it again",
        )
    return manifest


def _raw(body: dict[str, Any], path: str) -> bytes:
    try:
        return str(body.get("raw") or "").encode()
    except UnicodeEncodeError as error:
        raise InvalidManifest(f"{path}.Raw: half a surrogate pair is no text") from error


def _keys(value: Any, path: str) -> dict[str, Any]:
    """As Go reads: keys match in any case."""
    return {key.lower(): entry for key, entry in as_object(value, path).items()}


def _items(body: dict[str, Any], name: str, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields the objects of the list `name`, each with the path of it."""
    for number, item in enumerate(as_list(body.get(name.lower()), f"{path}.{name}")):
        yield _keys(item, f"{path}.{name}[{number}]"), f"{path}.{name}[{number}]"
