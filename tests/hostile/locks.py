"""ImagesLock and BundleLock files."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

from collections.abc import Iterator

from oci.errors import InvalidDocument
from tests.hostile.case import ACCEPTED, Case, given

DIGEST = "sha256:" + "a" * 64
HEAD = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"
BUNDLE = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: BundleLock\n"

IMAGES = (
    "", "x", "latest", "registry.example/ab", "registry.example/ab:1", "registry.example/ab@sha256:beef", f"registry.example/ab@{DIGEST}x",
    f"https://registry.example/ab@{DIGEST}", f"registry.example/../a@{DIGEST}", f"registry.example/ab//b@{DIGEST}", f"registry.example/A@{DIGEST}",
    f"../../etc/passwd@{DIGEST}", f"file:///etc/passwd@{DIGEST}", f"registry.example/ab?x=1@{DIGEST}", f"registry.example/ab%2f@{DIGEST}",
    f"user:secret@registry.example/ab@{DIGEST}", f"registry.example:99999/a@{DIGEST}", f"registry.example:x/a@{DIGEST}",
    f"registry.example/{'a' * 300}@{DIGEST}", f"registry.example/ab:{'t' * 129}@{DIGEST}",
    f"registry.example/ab@md5:{'a' * 32}", "\\u0000", f"registry.example/ab\\n@{DIGEST}", f"[::1/ab@{DIGEST}", f"s3://bucket/ab@{DIGEST}",
)  # fmt: skip
WHOLE = {
    "nothing": "",
    "a comment": "# nothing\n",
    "null": "null\n",
    "a text": "just words\n",
    "a list": "- a\n- b\n",
    "another kind": "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: Bundle\n",
    "another version": "apiVersion: imgpkg.carvel.dev/v9\nkind: ImagesLock\n",
    "no version": "kind: ImagesLock\nimages: []\n",
    "an unknown key": HEAD + "image: []\n",
    "images is a text": HEAD + "images: all\n",
    "images is a mapping": HEAD + "images: {a: 1}\n",
    "an image is a text": HEAD + "images:\n- x\n",
    "an image is a list": HEAD + "images:\n- - x\n",
    "an image has an unknown key": HEAD + f"images:\n- image: registry.example/ab@{DIGEST}\n  tag: x\n",
    "two documents": HEAD + "---\n" + HEAD,
    "a tab": HEAD + "images:\n\t- image: x\n",
    "a key twice": HEAD + "kind: ImagesLock\n",
    "a tag of Python": HEAD + "images: !!python/object/apply:os.system [id]\n",
    "a tag of binary data": HEAD + "images: !!binary aGVsbG8=\n",
    "an unclosed quote": HEAD + 'images: "\n',
    "an unknown alias": HEAD + "images: *all\n",
    "a billion laughs": "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)) + HEAD,
    "an alias of itself": HEAD + "images: &a [*a]\n",
    "a merge key": "x: &x {kind: ImagesLock}\n<<: *x\napiVersion: imgpkg.carvel.dev/v1alpha1\n",
    "10,000 levels": HEAD + "images: " + "[" * 10_000,
    "10,000 levels of blocks": HEAD + "images:\n" + "".join(" " * n + "-\n" for n in range(1, 2000)),
    "a scalar of 500 KB": HEAD + "images:\n- image: " + "x" * 500_000 + "\n",
    "a scalar in 100,000 lines": HEAD + "images:\n- image: |\n" + "    x\n" * 100_000,
    "a quoted scalar in 100,000 lines": HEAD + 'images:\n- image: "' + "x\n\n" * 100_000 + '"\n',
    "20,000 keys": HEAD + "".join(f"k{n}: 1\n" for n in range(20_000)),
    "bytes of zero": HEAD + "images: \x00\n",
    "a control character": HEAD + "images: \x1b[2J\n",
    "a number of 5,000 digits": HEAD + "images: " + "9" * 5000 + "\n",
    "a date": HEAD + "images: 2026-11-29\n",
    "a bundle is a list": BUNDLE + "bundle: []\n",
    "a bundle has no image": BUNDLE + "bundle: {tag: x}\n",
    "a bundle's tag leads out": BUNDLE + f"bundle: {{image: registry.example/ab@{DIGEST}, tag: ../../x}}\n",
    "a bundle's tag is a list": BUNDLE + f"bundle: {{image: registry.example/ab@{DIGEST}, tag: [x]}}\n",
    "annotations are a list": HEAD + f"images:\n- image: registry.example/ab@{DIGEST}\n  annotations: [x]\n",
    "an annotation is a mapping": HEAD + f"images:\n- image: registry.example/ab@{DIGEST}\n  annotations: {{a: {{b: c}}}}\n",
}  # fmt: skip
HARMLESS = {
    "no images": HEAD,
    "an empty list": HEAD + "images: []\n",
    "JSON": f'{{"apiVersion":"imgpkg.carvel.dev/v1alpha1","kind":"ImagesLock","images":[{{"image":"registry.example/ab@{DIGEST}"}}]}}',
    "the same image twice": HEAD + f"images:\n- image: registry.example/ab@{DIGEST}\n- image: registry.example/ab@{DIGEST}\n",
    "a tag and a digest": HEAD + f"images:\n- image: registry.example/ab:1@{DIGEST}\n",
    "Windows' line ends": (HEAD + f"images:\n- image: registry.example/ab@{DIGEST}\n").replace("\n", "\r\n"),
    "a BOM": "\ufeff" + HEAD,
    "an annotation of terminal escapes": HEAD + f'images:\n- image: registry.example/ab@{DIGEST}\n  annotations: {{a: "\\e[2J"}}\n',
}  # fmt: skip


def cases() -> Iterator[Case[bytes]]:
    for image in IMAGES:
        text = f'{HEAD}images:\n- image: "{image}"\n'
        yield Case(f"the image {image[:40]!r}", given(text.encode()), InvalidDocument)
    for name, text in WHOLE.items():
        yield Case(name, given(text.encode()), InvalidDocument)
    for name, text in HARMLESS.items():
        yield Case(name, given(text.encode()), ACCEPTED)
    yield Case("bytes that aren't UTF-8", lambda: HEAD.encode() + b"images: \xff\xfe\n", InvalidDocument)
