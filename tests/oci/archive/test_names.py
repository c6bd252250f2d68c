"""Names that an archive brings: each passes the grammar of its kind, or the whole archive is refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from oci.archive.index import RequiredBlob, TransshipJson
from oci.digest import Digest
from oci.errors import InvalidDocument, InvalidManifest, TransshipError
from oci.reference import ArchiveName
from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest
from tests.support.archiving import imported
from tests.support.command import transship
from tests.support.content import Content, digest_of, image, push
from tests.support.imgpkg_tarball import image as imgpkg_image
from tests.support.imgpkg_tarball import index as imgpkg_index
from tests.support.imgpkg_tarball import tarball
from tests.support.relocating import session

TRAVERSAL = "../../../admin/prod/manifests/latest"
TAGS: list[object] = [
    TRAVERSAL,
    "a/b",
    "x?y=1",
    "x#y",
    "%2e%2e",
    ".",
    "..",
    ".hidden",
    "-option",
    "t" * 129,
    "a b",
    "a\x1b[2Jb",
    "a\nb",
    "1.0\n",
    "\x00",
    "latest ",
    "ü",
    7,
    True,
    ["latest"],
    {"name": "latest"},
]
DIGESTS: list[object] = [
    "sha256:../../../admin/prod",
    "sha256:" + "A" * 64,
    "sha256:" + "a" * 63,
    "md5:" + "a" * 32,
    "sha256:" + "a" * 64 + "\n",
    7,
    ["x"],
]
REFERENCES: list[object] = [
    "registry.example/../admin/prod@sha256:" + "a" * 64,
    "registry.example/a//b@sha256:" + "a" * 64,
    "registry.example/shop@sha256:beef",
    "registry.example/shop:" + TRAVERSAL,
    "https://registry.example/shop@sha256:" + "a" * 64,
    "registry.example/SHOP@sha256:" + "a" * 64,
    "user@registry.example\n/shop",
    7,
    {"x": 1},
]
MEDIA_TYPES: list[object] = [
    "no media type",
    "a/b\r\nX-Header: 1",
    "application/../x",
    "/",
    "a/" + "b" * 200,
    7,
    ["a/b"],
]

Change = Callable[[dict[str, Any]], object]


def imgpkg_archive(path: Path, content: Content, change: Change, *, nested: bool = False) -> Path:
    element = imgpkg_image(content, "registry.example/shop", tag="1.0")
    if nested:
        made = image_index(content)
        element = imgpkg_index(made, "registry.example/shop", tag="1.0")
    change(element)
    path.write_bytes(tarball([element], [blob for blob in content.blobs if "layer" in blob.media_type]))
    return path


def image_index(content: Content) -> Content:
    from tests.support.content import index

    return index([content])


def layout_archive(path: Path, content: Content, annotations: Mapping[str, object], **entry: object) -> Path:
    listed = {"mediaType": content.media_type, "digest": content.digest, "size": len(content.raw)}
    index = {"schemaVersion": 2, "manifests": [{**listed, "annotations": annotations, **entry}]}
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    members |= {member_of(data): data for data in (content.raw, *(blob.data for blob in content.blobs))}
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def member_of(data: bytes) -> str:
    return f"blobs/sha256/{digest_of(data).removeprefix('sha256:')}"


def refused(path: Path, named: str) -> None:
    """By whatever opens it, for each way to look at an archive opens it in the same way."""
    with pytest.raises((InvalidManifest, InvalidDocument)) as caught:
        imported("registry.invalid/mirror/b", path)
    assert named in str(caught.value)
    with session() as one, pytest.raises(TransshipError):
        one.archive(ArchiveName.of(str(path)), "destination")


def set_in(key: str, value: object) -> Change:
    """Sets a value of an element's image or index; `key` is a path such as `Layers.0.Digest`."""

    def change(element: dict[str, Any]) -> None:
        at: Any = element["Image"] or element["ImageIndex"]
        *parents, last = key.split(".")
        for part in parents:
            at = at[int(part) if part.isdigit() else part]
        at[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize("tag", TAGS, ids=repr)
def test_a_tag_of_an_imgpkg_archive_is_one_by_grammar(tmp_path: Path, tag: object) -> None:
    refused(imgpkg_archive(tmp_path / "x.tar", image(60), set_in("Tag", tag)), "is not a tag")
    refused(imgpkg_archive(tmp_path / "y.tar", image(60), set_in("Tag", tag), nested=True), "is not a tag")


@pytest.mark.parametrize("tag", [*TAGS, ""], ids=repr)
def test_a_name_in_a_layout_archive_is_one_by_grammar(tmp_path: Path, tag: object) -> None:
    path = layout_archive(tmp_path / "x.tar", image(60), {"org.opencontainers.image.ref.name": tag})
    refused(path, "ref.name")


@pytest.mark.parametrize(
    "name", [f"docker.io/library/web:{TRAVERSAL}", "docker.io/../admin:1", "web:", "web:1:2", "a/b:%2e"]
)
def test_a_full_name_in_a_layout_archive_is_one_by_grammar(tmp_path: Path, name: str) -> None:
    refused(layout_archive(tmp_path / "x.tar", image(60), {"org.opencontainers.image.ref.name": name}), "ref.name")


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("1.0", ["1.0"]),
        ("docker.io/library/web:1.4", ["1.4"]),
        ("localhost/web:dev", ["dev"]),
        ("localhost:5000/web:dev", ["dev"]),
        ("web:dev", ["dev"]),
        ("localhost:5000/web", []),
        ("docker.io/library/web", []),
        ("docker.io/library/web@sha256:" + "a" * 64, []),
        (None, []),
    ],
)
def test_names_that_tools_write_into_layouts_are_read(tmp_path: Path, name: str | None, tags: list[str]) -> None:
    notes = {"org.opencontainers.image.ref.name": name} if name else {}
    path = layout_archive(tmp_path / "x.tar", image(60), notes)
    with session() as one:
        assert list(one.archive(ArchiveName.of(str(path))).tags()) == tags


@pytest.mark.parametrize("reference", REFERENCES, ids=repr)
@pytest.mark.parametrize("key", ["Refs.0", "OrigRef"])
def test_a_reference_of_an_archive_is_one_by_grammar(tmp_path: Path, key: str, reference: object) -> None:
    refused(imgpkg_archive(tmp_path / "x.tar", image(60), set_in(key, reference)), "Image")


@pytest.mark.parametrize("reference", REFERENCES, ids=repr)
@pytest.mark.parametrize("key", ["dev.transship.reference", "dev.transship.origin"])
def test_a_reference_of_a_layout_archive_is_one_by_grammar(tmp_path: Path, key: str, reference: object) -> None:
    refused(layout_archive(tmp_path / "x.tar", image(60), {key: reference}), "manifests[0].annotations")


@pytest.mark.parametrize("digest", DIGESTS, ids=repr)
@pytest.mark.parametrize("key", ["Manifest.Digest", "Layers.0.Digest", "Layers.0.DiffID"])
def test_a_digest_of_an_archive_is_one_by_grammar(tmp_path: Path, key: str, digest: object) -> None:
    refused(imgpkg_archive(tmp_path / "x.tar", image(60), set_in(key, digest)), "Image")


@pytest.mark.parametrize("digest", [*DIGESTS, "", None], ids=repr)
def test_a_digest_of_a_layout_archive_is_one_by_grammar(tmp_path: Path, digest: object) -> None:
    refused(layout_archive(tmp_path / "x.tar", image(60), {}, digest=digest), "manifests[0].digest")


@pytest.mark.parametrize("media_type", MEDIA_TYPES, ids=repr)
def test_a_media_type_of_an_archive_is_one_by_grammar(tmp_path: Path, media_type: object) -> None:
    for key in ("Manifest.MediaType", "Layers.0.MediaType"):
        refused(imgpkg_archive(tmp_path / "x.tar", image(60), set_in(key, media_type)), "MediaType")
    refused(layout_archive(tmp_path / "y.tar", image(60), {}, mediaType=media_type), "manifests[0].mediaType")


@pytest.mark.parametrize(
    "note",
    [
        {"version": 1, "volumes": 10**12, "volume": 1, "whole": "0" * 64},
        {"version": 1, "volumes": 2, "volume": 3, "whole": "0" * 64},
        {"version": 1, "volumes": 2, "volume": -1, "whole": "0" * 64},
        {"version": 1, "volumes": 2, "volume": True, "whole": "0" * 64},
        {"version": 1, "volumes": 2, "volume": 1, "whole": "../x"},
        {"version": 1, "requires": [{"digest": "sha256:../x", "size": 1}]},
        {"version": 1, "requires": [{"digest": "sha256:" + "a" * 64, "size": -1}]},
        {"version": 1, "requires": [{"digest": "sha256:" + "a" * 64, "size": 1e99}]},
        {"version": 1, "requires": {"x": 1}},
        {"version": 1, "base": "a\x1b[2J"},
        {"version": 1, "base": ["x"]},
        [1],
    ],
    ids=json.dumps,
)
def test_a_note_of_an_archive_is_one_by_grammar(tmp_path: Path, note: object) -> None:
    path = imgpkg_archive(tmp_path / "x.tar", image(60), lambda _: None)
    with tarfile.open(path, "a") as archive:
        data = json.dumps(note).encode()
        info = tarfile.TarInfo("transship.json")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    refused(path, "transship.json is damaged")


@pytest.mark.parametrize("command", [("archive", "list"), ("archive", "verify"), ("archive", "verify", "--deep")])
@pytest.mark.parametrize("form", ["imgpkg", "oci-layout"])
def test_the_command_refuses_the_whole_archive(tmp_path: Path, command: tuple[str, ...], form: str) -> None:
    path = tmp_path / "x.tar"
    if form == "imgpkg":
        imgpkg_archive(path, image(60), set_in("Tag", TRAVERSAL))
    else:
        layout_archive(path, image(60), {"org.opencontainers.image.ref.name": TRAVERSAL})
    done = transship(*command, str(path))

    assert done.code == 1
    assert "damaged or forged" in done.err


@pytest.mark.parametrize("form", ["imgpkg", "oci-layout"])
def test_an_import_never_touches_another_repository(registry: DockerRegistry, tmp_path: Path, form: str) -> None:
    """Such an archive moved `admin/prod:latest` of a real registry back to an older image."""
    old, new = image(61), image(62)
    push(registry.url, f"names/{form}/admin/prod", new, "latest")
    push(registry.url, f"names/{form}/admin/prod", old, "old")
    tag = f"../../../names/{form}/admin/prod/manifests/latest"
    path = tmp_path / "x.tar"
    if form == "imgpkg":
        imgpkg_archive(path, old, set_in("Tag", tag))
    else:
        layout_archive(path, old, {"org.opencontainers.image.ref.name": tag})
    before = len(registry.requests())

    with pytest.raises(InvalidManifest):
        imported(f"{registry.host}/names/{form}/mirror/b", path)
    assert transship("copy", "--tar", str(path), "--to-repo", f"{registry.host}/names/{form}/mirror/b").code == 1
    assert len(registry.requests()) == before
    assert raw_manifest(f"{registry.host}/names/{form}/admin/prod:latest") == new.raw


def test_an_archive_with_honest_names_is_imported(registry: DockerRegistry, tmp_path: Path) -> None:
    content = image(60)
    path = imgpkg_archive(tmp_path / "x.tar", content, lambda _: None)
    imported(f"{registry.host}/names/honest", path)

    assert raw_manifest(f"{registry.host}/names/honest:1.0") == content.raw


@pytest.mark.parametrize("base", ["march.tar", "a\nb.tar", "a\x1b[31m.tar", "a\udcff.tar", "x" * 9000])
def test_a_delta_can_be_read_whatever_the_name_of_what_it_was_made_from(base: str) -> None:
    required = RequiredBlob(Digest(digest_of(b"blob")), 4)
    read = TransshipJson.from_json(TransshipJson(base=base, requires=(required,)).to_json(), "x")

    assert read.requires == (required,)
    assert read.base.isprintable()
    assert read.base[:1] == base[:1]
