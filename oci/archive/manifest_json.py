"""`manifest.json` of imgpkg's tarball: every manifest and config as text, and which layers belong to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from oci.archive.entry import ROOT_LABEL, ArchiveEntry, entry_of, refused_name
from oci.descriptor import Descriptor, as_list, as_media_type, as_object
from oci.digest import Digest, digest_of, is_digest, parse_digest
from oci.errors import InvalidManifest, InvalidReference, TransshipError
from oci.manifest import NESTING_LIMIT, Manifest, parse_manifest

NAME = "manifest.json"
LIMIT = 1 << 30
"""Bytes of a manifest.json that is read: half a million images."""

_LAYER_TYPES = ("tar", "tar.gzip", "tar+gzip", "tar+zstd")
_OTHER_FORMAT = "what `docker save` writes is another format: copy it with skopeo to an OCI archive first"
_TEXT_LIMIT = 64 << 20
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(slots=True)
class ManifestJson:
    """What a manifest.json says: its elements in order, and everything they are made of, proven by digest."""

    elements: list[ArchiveEntry] = field(default_factory=list)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    configs: dict[Digest, bytes] = field(default_factory=dict)
    layers: dict[Digest, Descriptor] = field(default_factory=dict)
    """Layers, and whatever else indexes list that is no manifest; each once."""


def member_name(layer: Digest) -> str:
    """The suffix is always the same, whatever the layer is."""
    return f"{layer.replace(':', '-')}.tar.gz"


def render(
    elements: Iterable[ArchiveEntry], manifests: Mapping[Digest, Manifest], configs: Mapping[Digest, bytes]
) -> bytes:
    """The bytes that imgpkg writes for the same images. Raises InvalidManifest for text that isn't UTF-8, which no JSON
    string can hold."""
    rendered = sorted(
        (_sort_key(element, manifests), _element(element, manifests, configs, element.digest)) for element in elements
    )
    text = json.dumps([body for _, body in rendered], ensure_ascii=False, separators=(",", ":"))
    for sign, escape in _ESCAPES.items():
        text = text.replace(sign, escape)
    return text.encode()


def parse(data: bytes) -> ManifestJson:
    """Reads what imgpkg, or anything like it, wrote: keys in any case, unknown ones passed over, missing ones empty.

    Raises InvalidManifest, naming the path inside, for text that doesn't have the digest that it is said to have.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"{NAME} is not JSON", hint=_OTHER_FORMAT) from error
    if not isinstance(body, list):
        raise InvalidManifest(f"{NAME}: expected a list", hint=_OTHER_FORMAT)
    document = ManifestJson()
    for number, entry in enumerate(body):
        _read(document, _keys(entry, f"[{number}]"), f"[{number}]")
    if body and not document.elements:
        raise InvalidManifest(f"{NAME} lists no image as imgpkg writes it", hint=_OTHER_FORMAT)
    return document


def _sort_key(element: ArchiveEntry, manifests: Mapping[Digest, Manifest]) -> tuple[str, str, str]:
    manifest = manifests[element.digest]
    config = manifest.config
    key = element.digest if manifest.is_index or config is None else f"{element.digest}/{config.digest}"
    return key, element.tag, element.reference


def _element(
    element: ArchiveEntry, manifests: Mapping[Digest, Manifest], configs: Mapping[Digest, bytes], digest: Digest
) -> dict[str, Any]:
    manifest = manifests[digest]
    if manifest.is_index:
        return {"ImageIndex": _index(element, manifests, configs, digest), "Image": None}
    return {"ImageIndex": None, "Image": _image(element, manifest, configs)}


def _index(
    element: ArchiveEntry, manifests: Mapping[Digest, Manifest], configs: Mapping[Digest, bytes], digest: Digest
) -> dict[str, Any]:
    index = manifests[digest]
    children = [manifests[child.digest] for child in index.children if child.names_manifest]
    images = [_image(element, child, configs) for child in children if not child.is_index]
    indexes = [_index(element, manifests, configs, child.digest) for child in children if child.is_index]
    return {
        "Refs": [_at(element, digest)],
        "Images": images or None,
        "Indexes": indexes or None,
        "MediaType": index.media_type,
        "Digest": digest,
        "Raw": _text(index.raw, digest),
        **_marks(element),
    }


def _image(element: ArchiveEntry, manifest: Manifest, configs: Mapping[Digest, bytes]) -> dict[str, Any]:
    config = manifest.config
    raw_config = configs[config.digest] if config else b""
    diff_ids = _diff_ids(manifest, raw_config)
    layers = [
        {
            "MediaType": as_media_type(layer.media_type, f"{manifest.digest} layers[{number}].mediaType"),
            "Digest": layer.digest,
            "DiffID": diff_id,
            "Size": layer.size,
        }
        for number, (layer, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True))
    ]
    return {
        "Refs": [_at(element, manifest.digest)],
        "Layers": layers or None,
        "Config": {"Digest": config.digest if config else "", "Raw": _text(raw_config, manifest.digest)},
        "Manifest": {
            "MediaType": manifest.media_type,
            "Digest": manifest.digest,
            "Raw": _text(manifest.raw, manifest.digest),
        },
        **_marks(element),
    }


def _marks(element: ArchiveEntry) -> dict[str, Any]:
    return {
        "Tag": element.tag,
        "OrigRef": element.origin,
        "Labels": {ROOT_LABEL: ""} if element.is_root_bundle else None,
    }


def _at(element: ArchiveEntry, digest: Digest) -> str:
    """Children are where their index is."""
    return f"{element.reference.partition('@')[0]}@{digest}"


def _text(raw: bytes, digest: Digest) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidManifest(
            f"{digest}: the manifest or its config isn't UTF-8, and imgpkg's format holds them as text",
            hint="write an OCI-layout archive: --tar-format oci-layout",
        ) from error


def _diff_ids(manifest: Manifest, config: bytes) -> list[str]:
    """One for each layer, empty where it isn't a tar or where the config gives no digest."""
    try:
        listed = json.loads(config)["rootfs"]["diff_ids"]
    except (ValueError, TypeError, KeyError, RecursionError):
        listed = []
    if not isinstance(listed, list) or len(listed) != len(manifest.layers):
        return [""] * len(manifest.layers)
    return [
        diff_id if layer.media_type.endswith(_LAYER_TYPES) and isinstance(diff_id, str) and is_digest(diff_id) else ""
        for layer, diff_id in zip(manifest.layers, listed, strict=True)
    ]


def _read(document: ManifestJson, entry: dict[str, Any], path: str) -> None:
    for name, read in (("ImageIndex", _read_index), ("Image", _read_image)):
        if entry.get(name.lower()) is None:
            continue
        body = _keys(entry[name.lower()], f"{path}.{name}")
        manifest = read(document, body, f"{path}.{name}")
        labels = body.get("labels") or {}
        references = _list(body.get("refs"), f"{path}.{name}.Refs") or [""]
        elements = [
            entry_of(
                manifest.digest,
                f"{NAME} {path}.{name}",
                reference=reference,
                origin=body.get("origref"),
                tag=body.get("tag"),
                is_root_bundle=isinstance(labels, dict) and ROOT_LABEL in labels,
            )
            for reference in references
        ]
        document.elements.append(elements[0])


def _read_index(document: ManifestJson, body: dict[str, Any], path: str, depth: int = 0) -> Manifest:
    if depth > NESTING_LIMIT:
        raise InvalidManifest(f"{NAME} {path}: nested deeper than {NESTING_LIMIT} levels")
    index = _proven(body, path)
    for number, child in _numbered(body.get("images")):
        _read_image(document, _keys(child, f"{path}.Images[{number}]"), f"{path}.Images[{number}]")
    for number, child in _numbered(body.get("indexes")):
        where = f"{path}.Indexes[{number}]"
        _read_index(document, _keys(child, where), where, depth + 1)
    document.manifests[index.digest] = index
    document.layers.update({child.digest: child for child in index.children if not child.names_manifest})
    return index


def _read_image(document: ManifestJson, body: dict[str, Any], path: str) -> Manifest:
    manifest = _proven(_keys(body.get("manifest"), f"{path}.Manifest"), f"{path}.Manifest")
    document.manifests[manifest.digest] = manifest
    if manifest.config is not None:
        config = _keys(body.get("config"), f"{path}.Config")
        raw = str(config.get("raw") or "").encode()
        if digest_of(raw) != manifest.config.digest:
            raise InvalidManifest(f"{NAME} {path}.Config: the text doesn't have the digest {manifest.config.digest}")
        document.configs[manifest.config.digest] = raw
    _check_layers(body, path)
    document.layers.update({layer.digest: layer for layer in manifest.layers})
    return manifest


def _check_layers(body: dict[str, Any], path: str) -> None:
    """Imgpkg reads layers by these entries, and this program by the manifest: both must be able to."""
    for number, entry in enumerate(_list(body.get("layers"), f"{path}.Layers")):
        where = f"{path}.Layers[{number}]"
        layer = _keys(entry, where)
        _media_type(layer.get("mediatype"), f"{where}.MediaType")
        for key in ("Digest", "DiffID"):
            digest = layer.get(key.lower())
            try:
                if digest not in (None, ""):
                    parse_digest(digest)
            except InvalidReference as error:
                raise refused_name(f"{NAME} {where}.{key}", error) from error


def _proven(body: dict[str, Any], path: str) -> Manifest:
    raw = str(body.get("raw") or "").encode()
    media_type = _media_type(body.get("mediatype"), f"{path}.MediaType")
    try:
        manifest = parse_manifest(raw, media_type, limit=_TEXT_LIMIT)
    except TransshipError as error:
        raise InvalidManifest(f"{NAME} {path}: {error.message}", hint=error.hint) from error
    if manifest.digest != body.get("digest"):
        raise InvalidManifest(
            f"{NAME} {path}: the text has {manifest.digest}, not {str(body.get('digest'))[:80]}",
            hint="the archive is damaged: make it again",
        )
    return manifest


def _keys(value: Any, path: str) -> dict[str, Any]:
    """As Go reads: keys match in any case."""
    try:
        return {key.lower(): entry for key, entry in as_object(value, path).items()}
    except InvalidManifest as error:
        raise InvalidManifest(f"{NAME} {error.message}") from error


def _list(value: Any, path: str) -> list[Any]:
    return as_list(value, f"{NAME} {path}")


def _media_type(value: Any, path: str) -> str:
    return as_media_type(value, f"{NAME} {path}")


def _numbered(value: Any) -> Iterator[tuple[int, Any]]:
    return enumerate(value if isinstance(value, list) else [])
