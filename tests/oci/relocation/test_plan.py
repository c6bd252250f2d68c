"""A plan that comes from elsewhere: every identifier in it passes the grammar of its kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci.digest import parse_digest
from oci.errors import InvalidDocument
from oci.reference import parse_any, parse_store
from oci.relocation.plan import Plan, PlannedBlob, PlannedBundle, PlannedManifest, Role

DIGEST, OTHER = parse_digest("sha256:" + "a" * 64), parse_digest("sha256:" + "b" * 64)


def body() -> dict[str, Any]:
    plan = Plan(
        source="registry.example/shop:1",
        destination=parse_store("mirror.example/shop"),
        root=DIGEST,
        manifests=(
            PlannedManifest(
                digest=DIGEST,
                media_type="application/vnd.oci.image.manifest.v1+json",
                size=7,
                store=parse_store("registry.example/shop"),
                role=Role.ROOT,
                origin=parse_any(f"registry.example/shop@{DIGEST}"),
                blobs=(OTHER,),
                tags=("1",),
                keep_alive="sha256-x.imgpkg",
            ),
        ),
        blobs=(PlannedBlob(digest=OTHER, size=3, media_type="a/b", stores=(parse_store("registry.example/shop"),)),),
        bundles=(PlannedBundle(digest=DIGEST, entries=((parse_any(f"registry.example/shop@{OTHER}"), False),)),),
        skipped_layers=((DIGEST, OTHER),),
        tags=("1",),
    )
    loaded: dict[str, Any] = json.loads(plan.to_json())
    return loaded


def test_reading_and_writing_are_inverse() -> None:
    assert json.loads(Plan.from_dict(body()).to_json()) == body()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(
            (path, value)
            for path in ("root", "manifests.0.digest", "manifests.0.blobs.0", "blobs.0.digest", "bundles.0.digest")
            for value in ("sha256:../../../x", "sha256:" + "a" * 63, "latest", 7)
        ),
        *(("skipped_layers.0.1", value) for value in ("x", 7)),
        *(("manifests.0.rewritten_from", value) for value in ("x", "sha256:..")),
        *(
            (path, value)
            for path in ("tags.0", "manifests.0.tags.0", "manifests.0.keep_alive")
            for value in ("../../../admin/prod/manifests/latest", "a/b", "x?y=1", "%2e%2e", "..", "t" * 129, "a\n", 7)
        ),
        *(
            (path, value)
            for path in ("destination", "manifests.0.store", "blobs.0.stores.0")
            for value in ("mirror.example/../admin", "mirror.example/a//b", "mirror.example/a:tag", "a b/c", 7)
        ),
        *(("manifests.0.origin", value) for value in ("mirror.example/../x", f"mirror.example/x@{DIGEST}0", 7)),
        *(("bundles.0.entries.0.0", value) for value in ("mirror.example/../x", 7)),
        *(("manifests.0.media_type", value) for value in ("text/plain", "x\r\ny: z", 7)),
        *((f"{part}.0.size", value) for part in ("manifests", "blobs") for value in (-1, "7", 1.5, True)),
        ("manifests.0.raw", "{}"),
        ("manifests.0.role", "king"),
        ("manifests.0.unheard_of", 1),
        ("version", 2),
    ],
)
def test_what_is_no_identifier_is_refused(path: str, value: object) -> None:
    changed = body()
    at: Any = changed
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part) if part.isdigit() else part]
    at[int(last) if last.isdigit() else last] = value

    with pytest.raises(InvalidDocument):
        Plan.from_dict(changed)
