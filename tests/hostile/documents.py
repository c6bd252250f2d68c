"""What is hostile to any parser, whatever it expects; or an honest document of tests/fuzz with something done to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

LONG = 1 << 18

BENT: Mapping[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "nothing but zeros": lambda _: bytes(LONG),
    "nothing but spaces": lambda _: b" " * LONG,
    "all bytes": lambda _: bytes(range(256)) * 256,
    "lists in lists": lambda _: b"[" * LONG,
    "objects in objects": lambda _: b'{"a":' * (LONG // 5),
    "an empty list, twenty thousand times": lambda _: b"[" + b"[]," * 20_000 + b"[]]",
    "digits": lambda _: b"9" * LONG,
    "a number": lambda _: b"1e999999999",
    "not a number": lambda _: b"NaN",
    "nothing, in JSON": lambda _: b"null",
    "a text, in JSON": lambda _: b'"a"',
    "half a character": lambda _: rb'"\ud800"',
    "a mark of byte order before it": lambda honest: b"\xef\xbb\xbf" + honest,
    "UTF-16": lambda honest: honest.decode("latin-1").encode("utf-16"),
    "a thousand times": lambda honest: (honest * 1000)[: 2 * LONG],
    "cut in the middle": lambda honest: honest[: len(honest) // 2],
    "without its last byte": lambda honest: honest[:-1],
    "backwards": lambda honest: honest[::-1],
    "a line break before each byte": lambda honest: b"".join(b"\n%c" % byte for byte in honest),
    "numbers become lists": lambda honest: honest.replace(b"1", b"[1]").replace(b"2", b"[2]"),
    "texts become nothing": lambda honest: honest.replace(b'"sha256', b'null,"sha256'),
    "every text is half a character": lambda honest: honest.replace(b'":"', rb'":"\udfff'),
    "levels in the middle": lambda honest: honest.replace(b":", b":" + b"[" * 5000, 1),
    "aliases": lambda _: (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 9)) for name in b"bcdefghijk")
    ),
}
