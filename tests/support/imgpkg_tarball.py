"""imgpkg's tarball, written the plain way: one member after the other, in memory, from contents that a test made. It
shares no code with what is tested."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.content import Blob, Content, digest_of

ROOT_LABEL = "dev.carvel.imgpkg.copy.root-bundle"
_TAR_LAYERS = ("tar", "tar.gzip", "tar+gzip", "tar+zstd")


def tarball(elements: Sequence[dict[str, Any]], layers: Sequence[Blob]) -> bytes:
    """`elements` as `image` and `index` make them; each of the layers comes once, by digest."""
    members = {"manifest.json": _go_json(sorted(elements, key=_sort_key))}
    for layer in sorted(layers, key=lambda layer: digest_of(layer.data)):
        members[digest_of(layer.data).replace(":", "-") + ".tar.gz"] = layer.data
    written = (_header(name, len(data)) + data + bytes(-len(data) % 512) for name, data in members.items())
    return b"".join(written) + bytes(1024)


def image(content: Content, repository: str, origin: str = "", *, tag: str = "", root: bool = False) -> dict[str, Any]:
    return {"ImageIndex": None, "Image": _image(content, repository, origin, tag, root)}


def index(content: Content, repository: str, origin: str = "", *, tag: str = "") -> dict[str, Any]:
    return {"ImageIndex": _index(content, repository, origin, tag), "Image": None}


def _image(content: Content, repository: str, origin: str, tag: str, root: bool) -> dict[str, Any]:
    body = json.loads(content.raw)
    config = next(blob for blob in content.blobs if digest_of(blob.data) == body["config"]["digest"])
    diff_ids = json.loads(config.data).get("rootfs", {}).get("diff_ids", [])
    layers = [
        {
            "MediaType": layer["mediaType"],
            "Digest": layer["digest"],
            "DiffID": diff_ids[number] if layer["mediaType"].endswith(_TAR_LAYERS) and diff_ids else "",
            "Size": layer["size"],
        }
        for number, layer in enumerate(body["layers"])
    ]
    return {
        "Refs": [f"{repository}@{content.digest}"],
        "Layers": layers or None,
        "Config": {"Digest": digest_of(config.data), "Raw": config.data.decode()},
        "Manifest": {"MediaType": content.media_type, "Digest": content.digest, "Raw": content.raw.decode()},
        "Tag": tag,
        "OrigRef": origin,
        "Labels": {ROOT_LABEL: ""} if root else None,
    }


def _index(content: Content, repository: str, origin: str, tag: str) -> dict[str, Any]:
    images = [one for one in content.children if not one.children]
    indexes = [one for one in content.children if one.children]
    return {
        "Refs": [f"{repository}@{content.digest}"],
        "Images": [_image(one, repository, origin, tag, root=False) for one in images] or None,
        "Indexes": [_index(one, repository, origin, tag) for one in indexes] or None,
        "MediaType": content.media_type,
        "Digest": content.digest,
        "Raw": content.raw.decode(),
        "Tag": tag,
        "OrigRef": origin,
        "Labels": None,
    }


def _sort_key(element: Mapping[str, Any]) -> str:
    if element["ImageIndex"]:
        return str(element["ImageIndex"]["Digest"])
    return f"{element['Image']['Manifest']['Digest']}/{element['Image']['Config']['Digest']}"


def _go_json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign, escape in (("<", "003c"), (">", "003e"), ("&", "0026"), ("\u2028", "2028"), ("\u2029", "2029")):
        text = text.replace(sign, f"\\u{escape}")
    return text.encode()


def _header(name: str, size: int) -> bytes:
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[329:337] = block[337:345] = b"0000000\0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
