"""Names of the tags that a relocation writes beside the user's own, and the rules that name listed images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import date
from fnmatch import fnmatchcase

from msgspec import Struct

from oci.digest import Digest, digest_of, hex_of
from oci.errors import InvalidInput, InvalidReference
from oci.reference import Reference, Repository, parse_tag
from oci.store import Source, found_manifest

KEEP_ALIVE_SUFFIX = ".imgpkg"
LOCATIONS_SUFFIX = f".image-locations{KEEP_ALIVE_SUFFIX}"

_LONGEST_HEX = 64
"""Characters of a digest that a tag has room for (distribution-spec, "Referrers Tag Schema")."""

_LONGEST_NAME = 49
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")
_COSIGN = re.compile(r"sha(256|512)-[0-9a-f]{64}\.(sig|att|sbom)")
_ATTACHED = re.compile(r"(?:.+-)?(sha(?:256|512)-[0-9a-f]{64})(?:\.[A-Za-z0-9_.-]+)?")
_LEADING = re.compile(r"^[^A-Za-z0-9_]+")
_PLACE = re.compile(r"\{([a-z]*)\}")


def keep_alive(digest: Digest) -> str:
    """Returns the tag that holds a manifest against a registry's garbage collection."""
    return f"{referrers(digest)}{KEEP_ALIVE_SUFFIX}"


def repo_based(reference: str, digest: Digest) -> str:
    """As `keep_alive`, with the end of the image's name in front, for people who read tag lists.

    `reference` is where the image comes from, canonical; of it counts the repository path without the registry.
    """
    path = reference.partition("@")[0].partition("/")[2].replace("/", "-")
    name = _LEADING.sub("", _LEADING.sub("", _FOREIGN.sub("", path))[-_LONGEST_NAME:])
    return f"{name}-{keep_alive(digest)}".removeprefix("-")


def locations(bundle: Digest) -> str:
    """Returns the tag of a bundle's locations image."""
    return f"{referrers(bundle)}{LOCATIONS_SUFFIX}"


def cosign(digest: Digest) -> tuple[str, ...]:
    """Where cosign keeps signatures, attestations and SBOMs of an image."""
    return tuple(f"{referrers(digest)}.{kind}" for kind in ("sig", "att", "sbom"))


def is_cosign(tag: str) -> bool:
    return _COSIGN.fullmatch(tag) is not None


def referrers(subject: Digest) -> str:
    """Returns the tag of the index of referrers in a registry without the referrers API."""
    algorithm, _, encoded = subject.partition(":")
    return f"{algorithm}-{encoded[:_LONGEST_HEX]}"


def attached_to(tag: str) -> str:
    """Returns the `sha256-<hex>` in a tag's name, as `referrers` makes it of a digest; empty for any other tag.
    Keep-alive and locations tags, cosign's tags and the referrers tag have one."""
    match = _ATTACHED.fullmatch(tag)
    return match.group(1) if match else ""


def digest_named(tag: str) -> Digest | None:
    """Returns the digest in a tag's name; None too for a digest that was too long for a tag and was cut."""
    algorithm, _, encoded = attached_to(tag).partition("-")
    return Digest(f"{algorithm}:{encoded}") if algorithm == "sha256" else None


def filled(template: str, **values: str) -> str:
    """Returns the template with each {name} replaced; whatever else is in braces stays as it is, and makes no tag. It
    isn't `str.format`, which gives `{tag:>9999999999}` that many characters. Raises KeyError for another name."""
    return _PLACE.sub(lambda match: values[match[1]], template)


def backup(template: str, tag: str, digest: Digest, day: date) -> str:
    """Returns the tag under which an image stays when `tag` moves away from it. `template` has {tag}, {short} (12
    characters of the digest) and {date}. Raises InvalidInput for one that gives no tag."""
    try:
        return parse_tag(filled(template, tag=tag, short=hex_of(digest)[:12], date=f"{day:%Y%m%d}"), template)
    except (KeyError, InvalidReference) as error:
        raise InvalidInput(
            f"{template!r} gives no tag for {tag}", hint="write one with {tag}, {short} and {date}: {tag}-before-{date}"
        ) from error


def check_backup(template: str) -> None:
    """Raises InvalidInput for a template that can give no tag, or the very tag that moves."""
    if template and backup(template, "x", digest_of(b""), date(2000, 1, 1)) == "x":
        raise InvalidInput(f"{template!r} is the tag that moves", hint="add to it: {tag}-before-{date}")


KBLD_ID = "kbld.carvel.dev/id"
"""The annotation in which kbld keeps the name, with its tag, that a digest was resolved from."""

_FIELDS = ("name", "path", "tag", "short")


class NameRule(Struct, frozen=True):
    """Gives images readable tags. `pattern` is a glob for the repository an image comes from; `template` makes the tag
    out of `{name}` (the last part of that repository), `{path}` (all of it, joined by `-`), `{tag}` (the original tag,
    where its lock has one) and `{short}` (12 characters of the digest)."""

    pattern: str
    template: str

    @classmethod
    def parse(cls, text: str) -> NameRule:
        """Reads `PATTERN=TEMPLATE`, or a TEMPLATE alone for every image. Raises InvalidInput."""
        pattern, equals, template = text.rpartition("=")
        rule = cls(pattern if equals else "*", template)
        try:
            parse_tag(filled(rule.template, **dict.fromkeys(_FIELDS, "x")))
        except (KeyError, InvalidReference) as error:
            raise InvalidInput(
                f"{text!r} is no rule for names", hint="write PATTERN=TEMPLATE with {name}, {path}, {tag} or {short}"
            ) from error
        return rule

    def tag_of(self, origin: Reference, digest: Digest, annotations: Mapping[str, str]) -> str:
        """Returns the tag of an image; empty when the rule is for others, or needs an original tag that is missing."""
        if not fnmatchcase(str(origin.repository), self.pattern):
            return ""
        repository = origin.repository
        path = repository.path if isinstance(repository, Repository) else "image"
        try:
            tag = Reference.parse(annotations.get(KBLD_ID, "")).tag
        except InvalidReference:
            tag = ""
        if "{tag}" in self.template and not tag:
            return ""
        name = path.rpartition("/")[2]
        short = hex_of(digest)[:12]
        return filled(self.template, name=name, path=path.replace("/", "-"), tag=tag, short=short)[:128]


def is_keep_alive(tag: str) -> bool:
    """Says whether a tag shows the very manifest whose digest is in its name."""
    internal = tag.endswith(KEEP_ALIVE_SUFFIX) and not tag.endswith(LOCATIONS_SUFFIX)
    return internal and digest_named(tag) is not None


def is_internal(tag: str) -> bool:
    """Says whether a tag was made for a tool: keep-alive and locations tags, which a tag list hides."""
    return tag.endswith(KEEP_ALIVE_SUFFIX)


class Tag(Struct, frozen=True):
    """`digest` is empty where it was not asked for, or where the tag was deleted after the list was read."""

    name: str
    digest: str = ""


def list_tags(
    source: Source,
    *,
    internal: bool = False,
    digests: Executor | None = None,
    choose: Callable[[Sequence[str]], Iterable[str]] | None = None,
) -> tuple[Tag, ...]:
    """Sorted by name. `internal` shows those that tools make for themselves, too; `choose` takes some of them. With
    threads in `digests` each tag's digest is asked for, a HEAD each."""
    names = sorted(name for name in source.tags() if internal or not is_internal(name))
    if choose is not None:
        names = list(choose(names))
    if digests is None:
        return tuple(Tag(name) for name in names)

    def with_digest(name: str) -> Tag:
        descriptor = source.head_manifest(name)
        return Tag(name, descriptor.digest if descriptor else "")

    return tuple(digests.map(with_digest, names))


def resolve_tag(source: Source, reference: Reference) -> Reference:
    """The digest reference that a tag stands for. Raises NotFound."""
    return reference.at(found_manifest(source, reference.identifier).digest)


class TagsReport(Struct, frozen=True, kw_only=True):
    """Sorted by name. A resolved tag is the only one of its list."""

    repository: str
    tags: Sequence[Tag]
