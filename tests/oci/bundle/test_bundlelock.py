from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle.lockfile import BundleLock
from oci.errors import InvalidDocument
from oci.reference import Reference

BUNDLE = f"registry.corp.example/shop/bundle@sha256:{'3' * 64}"
PINNED = " (hint: write REGISTRY/REPOSITORY@sha256:...)"
HEADER = "apiVersion: imgpkg.carvel.dev/v1alpha1\n"


def written(tag: str) -> str:
    return f"---\n{HEADER}bundle:\n  image: {BUNDLE}\n{tag}kind: BundleLock\n"


@pytest.mark.parametrize(
    ("tag", "line"),
    [("", ""), ("1.4.0", "  tag: 1.4.0\n"), ("1.4", '  tag: "1.4"\n'), ("latest", "  tag: latest\n")],
)
def test_a_lock_is_read_and_written_as_imgpkg_does(tag: str, line: str) -> None:
    lock = BundleLock(Reference.parse(BUNDLE), tag)

    assert lock.to_yaml() == written(line)
    assert BundleLock.from_yaml(written(line), "lock.yml") == lock


@pytest.mark.parametrize("line", ["  tag: '1.4.0'\n", '  tag: "1.4.0"\n', "  tag: 1.4.0\n"])
def test_quotes_do_not_matter(line: str) -> None:
    assert BundleLock.from_yaml(written(line).removeprefix("---\n"), "lock.yml").tag == "1.4.0"


@given(st.just("") | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_any_tag_comes_back(tag: str) -> None:
    lock = BundleLock(Reference.parse(BUNDLE), tag)

    assert BundleLock.from_yaml(lock.to_yaml(), "lock.yml") == lock


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}kind: BundleLock\n", "lock.yml: bundle: expected a mapping, got nothing"),
        (f"{HEADER}kind: ImagesLock\n", "lock.yml: kind: expected BundleLock, got 'ImagesLock'"),
        (written("  extra: x\n"), "lock.yml: bundle.extra: unknown key (hint: known here: image, tag)"),
        (written("images: []\n"), "lock.yml: images: unknown key (hint: known here: apiVersion, bundle, kind)"),
        (
            written("  tag: 1.4\n"),
            "lock.yml: bundle.tag: expected text, got the number 1.4 (hint: put it in quotes)",
        ),
        (
            written("  tag: a/b\n"),
            (
                "lock.yml: bundle.tag: 'a/b': 'a/b' is not a tag "
                "(hint: use up to 128 characters from A-Z a-z 0-9 _ - . and begin with a letter, a digit or _)"
            ),
        ),
        (
            written("").replace(BUNDLE, "shop/bundle:1"),
            f"lock.yml: bundle.image: expected a digest reference, got 'shop/bundle:1'{PINNED}",
        ),
    ],
)
def test_what_breaks_the_format_is_refused_with_its_path(text: str, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        BundleLock.from_yaml(text, "lock.yml")

    assert str(caught.value) == message
