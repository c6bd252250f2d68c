from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle.image import LOCATIONS_FILE, BuiltImage, is_bundle_config, locations_image, read_member
from oci.bundle.lockfile import ImageLocations, LocatedImage
from oci.digest import digest_of
from oci.errors import InvalidDocument
from oci.reference import Reference
from tests.support.imgpkg_vectors import PUSHED

WEB = f"index.docker.io/acme/shop-web@sha256:{'1' * 64}"
DB = f"ghcr.io/acme/db-bundle@sha256:{'2' * 64}"
HEADER = "apiVersion: imgpkg.carvel.dev/v1alpha1\n"

LOCATIONS = f"""\
---
{HEADER}images:
- image: {DB}
  isBundle: true
- image: {WEB}
  isBundle: false
kind: ImageLocations
"""


def located(text: str, *, is_bundle: bool) -> LocatedImage:
    return LocatedImage(Reference.parse(text), is_bundle)


def test_locations_are_read_and_written_sorted() -> None:
    locations = ImageLocations((located(WEB, is_bundle=False), located(DB, is_bundle=True)))

    assert locations.to_yaml() == LOCATIONS
    assert ImageLocations.from_yaml(LOCATIONS, "w").images == (
        located(DB, is_bundle=True),
        located(WEB, is_bundle=False),
    )


def test_scenario_18_no_images_are_written_as_null() -> None:
    assert ImageLocations().to_yaml() == f"---\n{HEADER}images: null\nkind: ImageLocations\n"
    assert ImageLocations.from_yaml(ImageLocations().to_yaml(), "w") == ImageLocations()


def test_references_with_the_same_digest_are_all_kept() -> None:
    other = DB.replace("ghcr.io", "quay.io")

    text = ImageLocations((located(other, is_bundle=True), located(DB, is_bundle=True))).to_yaml()

    assert [line for line in text.splitlines() if "image:" in line] == [f"- image: {DB}", f"- image: {other}"]


def test_keys_that_are_not_known_are_passed_over() -> None:
    text = (
        f"{HEADER}kind: ImageLocations\nextra: {{a: 1}}\nimages:\n- image: {DB}\n  isBundle: true\n  seen: 2024-01-01\n"
    )

    assert ImageLocations.from_yaml(text, "w").images == (located(DB, is_bundle=True),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}kind: ImagesLock\n", "w: kind: expected ImageLocations, got 'ImagesLock'"),
        ("kind: ImageLocations\n", "w: apiVersion: expected imgpkg.carvel.dev/v1alpha1, got nothing"),
        (
            f"{HEADER}kind: ImageLocations\nimages:\n- image: {DB}\n  isBundle: 'true'\n",
            "w: images[0].isBundle: expected true or false, got 'true'",
        ),
        (
            f"{HEADER}kind: ImageLocations\nimages:\n- isBundle: true\n",
            "w: images[0].image: expected a digest reference, got nothing (hint: write REGISTRY/REPOSITORY@sha256:...)",
        ),
    ],
)
def test_what_breaks_the_format_is_refused_with_its_path(text: str, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        ImageLocations.from_yaml(text, "w")

    assert str(caught.value) == message


def test_scenario_18_the_locations_image_of_an_empty_bundle_is_imgpkgs() -> None:
    image = locations_image(ImageLocations())

    assert image.manifest.raw == PUSHED["V5"].manifest
    assert [data for _, data in image.blobs] == [PUSHED["V5"].layer, PUSHED["V5"].config]


entries = st.lists(
    st.tuples(
        st.from_regex(r"ghcr\.io/[a-z0-9]{2,9}/[a-z0-9]{1,9}@sha256:[0-9a-f]{64}", fullmatch=True), st.booleans()
    ),
    max_size=20,
)


def image_of(listed: Iterable[tuple[str, bool]]) -> BuiltImage:
    return locations_image(ImageLocations(tuple(located(text, is_bundle=is_bundle) for text, is_bundle in listed)))


@given(entries)
def test_a_locations_image_holds_what_it_was_made_from(listed: list[tuple[str, bool]]) -> None:
    image = image_of(listed)
    layer, config = image.blobs

    text = read_member(iter([layer[1]]), LOCATIONS_FILE.__eq__, 1 << 20)

    assert text is not None
    assert [(str(entry.image), entry.is_bundle) for entry in ImageLocations.from_yaml(text, "w").images] == sorted(
        set(listed)
    )
    assert image.manifest.blobs == (layer[0], config[0])
    assert all((digest_of(data), len(data)) == (blob.digest, blob.size) for blob, data in image.blobs)
    assert not is_bundle_config(config[1])


@given(entries)
def test_order_does_not_change_the_image(listed: list[tuple[str, bool]]) -> None:
    assert image_of(reversed(listed)).manifest.digest == image_of(listed).manifest.digest
