"""References: where a manifest is, by tag or digest, in a repository, an image-layout folder or an archive."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote

from msgspec import Struct

from oci.digest import Digest, is_digest
from oci.errors import InvalidReference

HUB = "index.docker.io"

_REPOSITORY = re.compile(r"[a-z0-9_\-./]{2,255}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.\-]+)(:[0-9]{1,5})?")
DOCKER_PREFIX = "docker://"
LAYOUT_PREFIX = "oci:"
ARCHIVE_PREFIX = "archive:"
S3_PREFIX = "s3://"
DOCKER_ARCHIVE_PREFIX, OCI_ARCHIVE_PREFIX = ARCHIVE_TRANSPORTS = ("docker-archive:", "oci-archive:")
_ENGINES = frozenset({"docker-daemon", "containers-storage"})
_SHOWN = 200
_UNDECODED = "surrogateescape"
"""How bytes in the name of a file that aren't UTF-8 stand in text (PEP 383)."""
_KEY_LIMIT = 1024
"""Bytes that S3 takes for a key."""
_EMPTY_SEGMENTS = frozenset({"", ".", ".."})


class StoreName:
    """What holds manifests and blobs under one set of tags: a repository, a layout folder or an archive."""

    __slots__ = ()

    @property
    def registry(self) -> str:
        """Returns the host of a repository; empty for the other kinds."""
        return ""

    @property
    def is_local(self) -> bool:
        """Says whether other machines can't reach it."""
        return False

    @property
    def location(self) -> str:
        """Returns where an archive is, or its first volume; empty for the other kinds."""
        return ""

    @property
    def short(self) -> str:
        """Returns the name as titles show it."""
        return str(self)


class Repository(StoreName, Struct, frozen=True, order=True):
    """A repository in a registry; `str()` gives the canonical name, registry host included."""

    registry: str
    path: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"

    @classmethod
    def parse(cls, text: str) -> Repository:
        """Raises InvalidReference when `text` has a tag or digest, or isn't a repository name."""
        _expect_repository(text)
        if "@" in text or ":" in text.rpartition("/")[2]:
            raise InvalidReference(
                f"{clipped(text)} is not a repository: it carries a tag or a digest",
                hint="write REGISTRY/REPOSITORY without one",
            )
        return _repository(text, text)


class LayoutFolder(StoreName, Struct, frozen=True, order=True):
    """An OCI image-layout folder; it plays the role of one repository. `path` is absolute."""

    path: str

    def __str__(self) -> str:
        return f"{LAYOUT_PREFIX}{self.path}"

    @property
    def is_local(self) -> bool:
        return True


class ArchiveName(StoreName, Struct, frozen=True, order=True):
    """A tarball, or the volumes it was split into: absolute paths or `s3://BUCKET/KEY`, one or more."""

    locations: tuple[str, ...]

    def __str__(self) -> str:
        quoted = (quote(location, safe="/:~ ", errors=_UNDECODED) for location in self.locations)
        return ARCHIVE_PREFIX + "|".join(quoted)

    @property
    def is_local(self) -> bool:
        return not in_object_store(self.location)

    @property
    def location(self) -> str:
        return self.locations[0]

    @property
    def short(self) -> str:
        return ", ".join(self.locations)

    @classmethod
    def of(cls, *locations: str) -> ArchiveName:
        """Raises InvalidReference for one that names no file or object."""
        return cls(tuple(_location(location) for location in locations))


class Reference(Struct, frozen=True, order=True):
    """A store, and a tag or a digest in it; never both. `str()` gives the canonical rendering."""

    repository: StoreName
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def identifier(self) -> str:
        """Returns the digest, else the tag: what stands in a manifest URL."""
        return self.digest or self.tag

    @property
    def short(self) -> str:
        """Returns the last part of the name, with the tag or 12 characters of the digest, for titles: `shop-bundle
        1.4.0`."""
        return f"{str(self.repository).rpartition('/')[2]} {self.digest[:19] if self.digest else self.tag}"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads `name[:tag][@digest]` as imgpkg does: weak rules, the tag dropped when a digest is given,
        `latest` when there is neither, Docker Hub when the first segment has no `.` or `:`."""
        if text.startswith(("http://", "https://")):
            raise InvalidReference(f"{clipped(text)} starts with a scheme", hint="leave out http:// or https://")
        _expect_repository(text)
        name, at, digest = text.partition("@")
        tag = ""
        head, colon, tail = name.rpartition(":")
        if colon and "/" not in tail:
            name, tag = head, parse_tag(tail, text)
        if at and not (is_digest(digest) and digest.startswith("sha256:")):
            raise InvalidReference(
                f"{clipped(text)}: {clipped(digest)} is not a digest",
                hint="write @sha256: followed by 64 lower-case hexadecimal characters",
            )
        repository = _repository(name, text)
        return cls(repository, "", Digest(digest)) if at else cls(repository, tag or "latest")

    def at(self, digest: Digest) -> Reference:
        return Reference(self.repository, "", digest)


def check_path(path: str) -> str:
    """Returns a path that may be given to the operating system. Raises InvalidReference for one with a zero byte, or
    with half a surrogate pair, which JSON and YAML can write, and for which Python raises ValueError."""
    try:
        if b"\0" not in os.fsencode(path):
            return path
    except UnicodeEncodeError:
        pass
    raise InvalidReference(
        f"{clipped(path)} can't be the name of a file", hint="it has a character that no name of a file may have"
    )


def absolute(path: str) -> str:
    """Returns the whole path of a file. Raises InvalidReference in a working folder that is gone, and as `check_path`
    does."""
    try:
        return os.path.abspath(check_path(path))
    except FileNotFoundError as error:
        raise InvalidReference(
            f"{clipped(path)}: there is no such working folder any more", hint="cd somewhere"
        ) from error


def clipped(text: str) -> str:
    """Returns the text in quotes, for a message: at most 200 characters of it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def parse_tag(tag: object, text: str = "") -> str:
    """Returns `tag`. Raises InvalidReference unless it is text by the grammar of distribution-spec ("Pulling
    manifests"): 1 to 128 characters of `A-Za-z0-9_-.`, the first of them no `-` and no `.`."""
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        shown = str(tag)[:200]
        raise InvalidReference(
            f"{clipped(text or shown)}: {clipped(shown)} is not a tag",
            hint="use up to 128 characters from A-Z a-z 0-9 _ - . and begin with a letter, a digit or _",
        )
    return tag


def is_tag(name: str) -> bool:
    """Says whether a name that a store lists can be asked for: Artifactory lists names with characters that no request
    may have, and some registries list digests."""
    return _TAG.fullmatch(name) is not None


def is_path(name: str) -> bool:
    """Says the same of the path of a repository."""
    return _REPOSITORY.fullmatch(name) is not None and not _EMPTY_SEGMENTS & set(name.split("/"))


def parse_any(text: str) -> Reference:
    """Reads `oci:PATH[:TAG]`, `oci:PATH@DIGEST`, `archive:LOCATION@DIGEST` or a registry reference, with or without the
    `docker://` that skopeo and podman write before it (containers-transports(5)). A layout without a tag means
    `latest`."""
    text = text.removeprefix(DOCKER_PREFIX)
    if text.startswith(ARCHIVE_PREFIX):
        store, _, digest = text.rpartition("@")
        if not is_digest(digest):
            raise InvalidReference(
                f"{clipped(text)} names nothing in the archive", hint="write archive:LOCATION@DIGEST"
            )
        return Reference(parse_store(store), "", Digest(digest))
    if not text.startswith(LAYOUT_PREFIX):
        return Reference.parse(text)
    name = text.removeprefix(LAYOUT_PREFIX)
    path, at, digest = name.rpartition("@")
    if at and is_digest(digest):
        return Reference(_folder(path, text), "", Digest(digest))
    path, colon, tag = name.rpartition(":")
    if colon and _TAG.fullmatch(tag):
        return Reference(_folder(path, text), tag)
    return Reference(_folder(name, text), "latest")


def parse_store(text: str) -> StoreName:
    """Reads `oci:PATH`, `archive:LOCATION` or `REGISTRY/REPOSITORY`, without tag and digest. `docker://` may
    stand before the last."""
    text = text.removeprefix(DOCKER_PREFIX)
    if text.startswith(ARCHIVE_PREFIX):
        locations = text.removeprefix(ARCHIVE_PREFIX).split("|")
        return ArchiveName.of(*(unquote(location, errors=_UNDECODED) for location in locations))
    if text.startswith(LAYOUT_PREFIX):
        return _folder(text.removeprefix(LAYOUT_PREFIX), text)
    return Repository.parse(text)


def read_store(kind: type, text: str) -> StoreName:
    """Reads a name in a stored value: the `dec_hook` of msgspec for fields that are a StoreName. Raises ValueError."""
    if kind is not StoreName or not isinstance(text, str):
        raise ValueError(f"expected the name of a store, got {str(text)[:40]!r}")
    try:
        return parse_store(text)
    except InvalidReference as error:
        raise ValueError(str(error)) from error


def named_archive(text: str) -> tuple[str, str] | None:
    """Returns path and name in `docker-archive:PATH[:NAME]` or `oci-archive:PATH[:NAME]` (containers-transports(5));
    None for any other text."""
    prefix = next((prefix for prefix in ARCHIVE_TRANSPORTS if text.startswith(prefix)), "")
    if not prefix:
        return None
    path, _, name = text.removeprefix(prefix).partition(":")
    if not path:
        raise InvalidReference(f"{clipped(text)} names no file", hint=f"write {prefix}PATH or {prefix}PATH:NAME")
    return path, name


def _folder(path: str, text: str) -> LayoutFolder:
    if not path:
        raise InvalidReference(f"{clipped(text)} names no folder", hint="write oci:PATH or oci:PATH:TAG")
    return LayoutFolder(absolute(path))


def in_object_store(location: str) -> bool:
    """Says whether an archive is an object, `s3://BUCKET/KEY`, and no file."""
    return location.startswith(S3_PREFIX)


def bucket_and_key(location: str) -> tuple[str, str]:
    """Returns the parts of `s3://BUCKET/KEY`, each empty where it is missing."""
    bucket, _, key = location.removeprefix(S3_PREFIX).partition("/")
    return bucket, key


def _location(text: str) -> str:
    if not in_object_store(text):
        if not text or text.endswith("/"):
            raise InvalidReference(f"{clipped(text)} names no file")
        if text == "-":
            raise InvalidReference(
                "an archive is written in parts, out of order, and can't be a stream", hint="name a file"
            )
        if text.startswith(ARCHIVE_TRANSPORTS):
            raise InvalidReference(
                f"{clipped(text)}: an archive is named by its path here",
                hint=f"leave out {text.partition(':')[0]}: before a path, or name it with -i or --to-repo",
            )
        if _SCHEME.match(text):
            raise InvalidReference(
                f"{clipped(text)}: an archive is a file or an object",
                hint="give a path, or s3://BUCKET/KEY in lower case",
            )
        return absolute(text)
    bucket, key = bucket_and_key(text)
    if not bucket or not key or key.endswith("/"):
        raise InvalidReference(f"{clipped(text)} names no object", hint="write s3://BUCKET/KEY")
    if _EMPTY_SEGMENTS & set(key.split("/")):
        # Taken for a path, it is refused or becomes another key (Amazon S3 User Guide, "Object key naming guidelines").
        raise InvalidReference(
            f"{clipped(text)}: an empty, '.' or '..' part between slashes is in the key",
            hint="choose a key without such a part",
        )
    if not is_utf8(text):
        raise InvalidReference(f"{clipped(text)}: the name of an object is UTF-8", hint="choose another name")
    if len(key.encode()) > _KEY_LIMIT:
        raise InvalidReference(
            f"{clipped(text)}: the key has more than {_KEY_LIMIT} bytes", hint="choose a shorter key"
        )
    return text


def is_utf8(text: str) -> bool:
    """Says whether the text can be written as UTF-8, which the name of a file need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _expect_repository(text: str) -> None:
    """Refuses what would mean a repository of Docker Hub's library with a tag, and doesn't: a host alone (no name there
    has a dot), an archive, and the stores of container engines (containers-transports(5))."""
    host, _, port = text.partition(":")
    if text.startswith(ARCHIVE_TRANSPORTS):
        raise InvalidReference(
            f"{clipped(text)} is an archive, and a repository is expected here",
            hint=f"copy it first: `transship copy -i {clipped(text)} --to-repo oci:FOLDER`",
        )
    if port and host in _ENGINES:
        raise InvalidReference(
            f"{clipped(text)} is a store of a container engine, which isn't read",
            hint="write the image into a file with `docker save` or `podman save`; docker-archive:FILE is that file",
        )
    named = "." in host or (host == "localhost" and bool(port))
    if named and not {"/", "@"} & {*text} and not text.endswith(":") and _HOST.fullmatch(text):
        hint = f"write {text}/REPOSITORY"
        if text.endswith((".tar", ".tgz", ".gz")):
            hint = f"a file is an archive: write oci-archive:{text}"
        raise InvalidReference(f"{clipped(text)} names a registry and no repository", hint=hint)


def _repository(name: str, text: str) -> Repository:
    host, slash, path = name.partition("/")
    if not slash or not ("." in host or ":" in host):
        host, path = HUB, name
    host = host.lower()  # RFC 3986, 6.2.2.1: spellings of one registry, which have one session and one login
    if host == "docker.io":
        host = HUB
    if host == HUB and "/" not in path:
        path = f"library/{path}"
    if not _HOST.fullmatch(host):
        raise InvalidReference(f"{clipped(text)}: {clipped(host)} is not a registry host")
    if not _REPOSITORY.fullmatch(path):
        raise InvalidReference(
            f"{clipped(text)}: repository can only contain the characters a-z 0-9 _ - . / and be 2 to 255 long",
            hint="a repository name is lower case, without a scheme",
        )
    if _EMPTY_SEGMENTS & set(path.split("/")):
        raise InvalidReference(f"{clipped(text)}: an empty, '.' or '..' path segment is not part of a repository name")
    return Repository(host, path)
