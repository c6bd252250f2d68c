from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle.lockfile import ImagesLock, LockedImage
from oci.errors import InvalidDocument
from oci.reference import Reference, Repository, parse_any

WEB = f"index.docker.io/acme/shop-web@sha256:{'1' * 64}"
DB = f"ghcr.io/acme/db-bundle@sha256:{'2' * 64}"

LOCK = f"""\
---
apiVersion: imgpkg.carvel.dev/v1alpha1
images:
- annotations:
    kbld.carvel.dev/id: docker.io/acme/shop-web:2.3
    kbld.carvel.dev/origins: |
      - resolved:
          tag: "2.3"
          url: docker.io/acme/shop-web:2.3
  image: {WEB}
- image: {DB}
kind: ImagesLock
"""
PINNED = " (hint: write REGISTRY/REPOSITORY@sha256:...)"
HEADER = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"


def locked(text: str, **notes: str) -> LockedImage:
    return LockedImage(Reference.parse(text), notes)


def test_a_lock_is_read_and_written_as_it_was() -> None:
    lock = ImagesLock.from_yaml(LOCK, "images.yml")

    assert [str(image.image) for image in lock.images] == [WEB, DB]
    assert lock.images[0].annotations["kbld.carvel.dev/id"] == "docker.io/acme/shop-web:2.3"
    assert lock.images[1].annotations == {}
    assert lock.to_yaml() == LOCK


@pytest.mark.parametrize("images", ["", "images: null\n", "images: []\n", "images:\n"])
@pytest.mark.parametrize("start", ["", "---\n", "\ufeff---\n", "# made by hand\n---\n"])
def test_an_empty_lock_is_read_however_it_is_written(images: str, start: str) -> None:
    assert ImagesLock.from_yaml(f"{start}{HEADER}{images}".encode(), "images.yml") == ImagesLock()


def test_scenario_18_an_empty_lock_has_no_images_key() -> None:
    assert ImagesLock().to_yaml() == f"---\n{HEADER}"


def test_references_are_canonicalised() -> None:
    text = f"{HEADER}images:\n- image: nginx:1.27@sha256:{'3' * 64}\n"

    assert ImagesLock.from_yaml(text, "w").images == (locked(f"index.docker.io/library/nginx@sha256:{'3' * 64}"),)


def test_order_and_repetitions_are_kept() -> None:
    lock = ImagesLock((locked(WEB), locked(DB, note="again"), locked(WEB)))

    assert ImagesLock.from_yaml(lock.to_yaml(), "w") == lock


segments = st.text(string.ascii_lowercase + string.digits + "_-", min_size=2, max_size=12)
references = st.builds(
    lambda host, path, digest: str(Reference(Repository(host, "/".join(path)), "", digest)),
    st.sampled_from(["ghcr.io", "localhost:5000", "[::1]:5000", "10.0.0.1"]),
    st.lists(segments, min_size=1, max_size=3),
    st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format),
)
all_notes = st.dictionaries(st.text(), st.text(), max_size=4)


@given(st.lists(st.tuples(references, all_notes), max_size=5))
def test_a_written_lock_reads_back(entries: list[tuple[str, dict[str, str]]]) -> None:
    lock = ImagesLock(tuple(LockedImage(Reference.parse(text), own) for text, own in entries))

    back = ImagesLock.from_yaml(lock.to_yaml().encode(), "w")

    assert back == lock
    assert [image.annotations for image in back.images] == [image.annotations for image in lock.images]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "images.yml: expected a mapping, got nothing"),
        ("[]", "images.yml: expected a mapping, got a list"),
        (
            "kind: ImagesLock\n",
            "images.yml: apiVersion: expected imgpkg.carvel.dev/v1alpha1, got nothing",
        ),
        (
            HEADER.replace("v1alpha1", "v2"),
            "images.yml: apiVersion: expected imgpkg.carvel.dev/v1alpha1, got 'imgpkg.carvel.dev/v2'",
        ),
        (
            HEADER.replace("ImagesLock", "BundleLock"),
            "images.yml: kind: expected ImagesLock, got 'BundleLock'",
        ),
        (f"{HEADER}images: {{}}\n", "images.yml: images: expected a list, got a mapping"),
        (f"{HEADER}images: [null]\n", "images.yml: images[0]: expected a mapping, got nothing"),
        (
            f"{HEADER}images:\n- image: {WEB}\n- {{}}\n",
            f"images.yml: images[1].image: expected a digest reference, got nothing{PINNED}",
        ),
        (
            f"{HEADER}images:\n- image: ghcr.io/acme/db:1\n",
            f"images.yml: images[0].image: expected a digest reference, got 'ghcr.io/acme/db:1'{PINNED}",
        ),
        (
            f"{HEADER}images:\n- image: https://{WEB}\n",
            f"images.yml: images[0].image: 'https://{WEB}' starts with a scheme (hint: leave out http:// or https://)",
        ),
        (
            f"{HEADER}images:\n- image: 12\n",
            "images.yml: images[0].image: expected text, got the number 12 (hint: put it in quotes)",
        ),
        (
            f"{HEADER}images:\n- image: {WEB}\n  annotations: {{a: yes}}\n",
            "images.yml: images[0].annotations.a: expected text, got true (hint: put it in quotes)",
        ),
        (
            f"{HEADER}images:\n- image: {WEB}\n  annotations: {{a: 2024-01-01}}\n",
            "images.yml: images[0].annotations.a: expected text, got the timestamp 2024-01-01 (hint: put it in quotes)",
        ),
        (
            f"{HEADER}images:\n- image: {WEB}\n  annotations: {{a: {{b: c}}}}\n",
            "images.yml: images[0].annotations.a: expected text, got a mapping",
        ),
        (
            f"{HEADER}images:\n- image: {WEB}\n  annotations: [a]\n",
            "images.yml: images[0].annotations: expected a mapping, got a list",
        ),
    ],
)
def test_what_breaks_the_format_is_refused_with_its_path(text: str, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        ImagesLock.from_yaml(text, "images.yml")

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}extra: 1\n", "images.yml: extra: unknown key (hint: known here: apiVersion, images, kind)"),
        (
            f"{HEADER}images:\n- image: {WEB}\n- image: {WEB}\n  tag: x\n",
            "images.yml: images[1].tag: unknown key (hint: known here: annotations, image)",
        ),
    ],
)
def test_scenario_17_an_extra_key_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        ImagesLock.from_yaml(text, "images.yml")

    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["ghcr.io/acme/web:1", f"oci:/srv/layout@sha256:{'1' * 64}"])
def test_only_a_digest_in_a_registry_is_written(text: str) -> None:
    lock = ImagesLock((LockedImage(parse_any(text)),))

    with pytest.raises(InvalidDocument) as caught:
        lock.to_yaml()

    assert str(caught.value) == f"{text} can't stand in a lock{PINNED}"
