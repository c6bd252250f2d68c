"""The policy of a prune, which says what is to be kept at a destination; and how patterns, versions and ranges of
versions are read, by which mirrors select tags, too.

Tags that are versions, and ranges of versions.

A tag is a version when it reads `1.4.0`, `v1.4.0`, `1.4`, `1.4.0-rc.1`, or `1.4.0_build.7`, for a tag can't hold a `+`.
`1.25.5-r3` is the third build of 1.25.5 (Alpine, Bitnami) and comes after it, while semver takes `r3` for a prerelease;
so does it take the variant of `3.12-alpine`, which only a rule that names variants can know for what it is.

A range is what npm writes: `^1.4`, `~1.4.2`, `>=2 <3`, `1.x`, `1.2 - 1.4`, and several joined by `||`. A prerelease
belongs to a range only where the range names a prerelease of the same version, for a reader of `>=1.4` doesn't ask for
the candidates of 2.0. A range may name a build: `>=1.25.5-r3` begins with the third one of 1.25.5.

`semantic_version.Version` compares. Its `NpmSpec` isn't used: unlike node-semver, it takes 1.5.0-rc.1 into `<=1.4` and
1.5.0 into `1.2 - 1.5.0-rc.2`, and refuses `~>1.4`, `> 1.4` and `=v1.4`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Protocol, cast

import msgspec
import re2
from semantic_version import Version

from oci.bundle.tagnames import attached_to
from oci.digest import Digest, parse_digest
from oci.errors import InvalidInput
from oci.options import Options, option
from oci.reference import parse_any, parse_tag

_LISTS = ("tags", "patterns", "versions", "digests", "locks", "bundles")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class KeepOptions(Options):
    """What is to be kept. Each of these rules is enough. What a kept manifest needs is kept with it."""

    tags: tuple[Text, ...] = option(
        (),
        "Tags by their exact names. A prune is refused when the repository lacks one of them.",
        examples=[["latest"]],
        max_length=10_000,
        flag="--keep-tag",
    )
    patterns: tuple[Text, ...] = option(
        (),
        "Regular expressions for whole names of tags.",
        examples=[[r"v\d+\.\d+\.\d+"]],
        max_length=100,
        flag="--keep",
        commas=False,
    )
    versions: tuple[Text, ...] = option(
        (),
        "Ranges of semantic versions, as npm writes them: '^1.4'.",
        examples=[["^1.4", ">=2 <3"]],
        max_length=100,
        flag="--keep-version",
        commas=False,
    )
    latest: int = option(
        0,
        "The tags of this many newest versions; pre-releases don't count.",
        title="Newest versions",
        ge=0,
        le=100_000,
        flag="--keep-latest",
    )
    digests: tuple[Digest, ...] = option(
        (), "Manifests by digest, with all they list.", max_length=10_000, flag="--keep-digest"
    )
    locks: tuple[Text, ...] = option(
        (),
        "ImagesLock and BundleLock files: what they pin, whatever repository they name.",
        examples=[["/etc/transship/images.lock.yml"]],
        max_length=1000,
        flag="--keep-lock",
    )
    bundles: tuple[Text, ...] = option(
        (),
        "Bundles of any repository, by reference: they and all they list are kept.",
        examples=[["registry.corp.example/mirror/shop:1.4.0"]],
        max_length=1000,
        flag="--keep-bundle",
    )
    nothing: bool = option(
        False,
        "Delete everything, on purpose. A policy that keeps nothing is refused without it.",
        title="Keep nothing",
        flag="--keep-nothing",
    )


class Keep(KeepOptions):
    """The policy of a prune. Raises InvalidInput for what can't be read.

    Tags that are attached to a digest (`sha256-<hex>.imgpkg`, `.sig`...) live and die with it; of the rules, only
    `tags` and `patterns` look at them. The text of this module says which tags are versions.
    """

    optional: tuple[str, ...] = option(
        (), "Names among `tags` and `digests` that the destination may lack: those of mirrors, locks and bundles."
    )

    def __post_init__(self) -> None:
        for tag in self.tags:
            parse_tag(tag)
        for digest in self.digests:
            parse_digest(digest)
        for reference in self.bundles:
            parse_any(reference)
        if self.latest < 0:
            raise InvalidInput(f"{self.latest}: the number of newest versions to keep can't be negative")
        try:
            check_patterns(self.patterns)
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        for text in self.versions:
            try:
                parse_range(text)
            except ValueError as error:
                hint = "write one as npm does, such as ^1.4 or '>=2 <3'"
                raise InvalidInput(f"{text!r} is no range of versions", hint=hint) from error

    @property
    def is_empty(self) -> bool:
        return not (self.latest or any(getattr(self, name) for name in _LISTS))

    @property
    def required(self) -> tuple[str, ...]:
        """Exact names and digests that must be at the destination."""
        return tuple(name for name in (*self.tags, *self.digests) if name not in set(self.optional))

    def and_also(self, other: Keep) -> Keep:
        """Keeps what either keeps. What one of them requires is required."""
        both: dict[str, Any] = {
            name: tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name)))) for name in _LISTS
        }
        required = {*self.required, *other.required}
        optional = dict.fromkeys(name for name in (*self.optional, *other.optional) if name not in required)
        latest, nothing = max(self.latest, other.latest), self.nothing and other.nothing
        return Keep(**both, latest=latest, nothing=nothing, optional=tuple(optional))

    def chosen(self, tags: Iterable[str]) -> frozenset[str]:
        """Returns those of `tags` that the policy names."""
        names = frozenset(tags)
        chosen = names & frozenset(self.tags)
        chosen |= {name for name in names if matches(name, self.patterns)}
        tags_read = {name: read for name in names if not attached_to(name) and (read := read_version(name))}
        if self.versions:
            chosen |= {
                name
                for name, read in tags_read.items()
                if in_ranges(read.version, self.versions, prereleases=False, counter=read.counter)
            }
        released = {read.version for read in tags_read.values() if not read.version.prerelease}
        newest = set(sorted(released, reverse=True)[: self.latest])
        return chosen | {name for name, read in tags_read.items() if read.version in newest}


# Versions and patterns.

_VERSION = re.compile(r"v?(\d{1,18})\.(\d{1,18})(?:\.(\d{1,18}))?(?:-([0-9A-Za-z.-]+))?(?:_([0-9A-Za-z._-]+))?")
_COUNTED = re.compile(r"(?:(?P<rest>.+)-)?(?:r|rev|build)\.?(?P<counter>\d{1,9})")
_BUILD = re.compile(r"(?:(?:r|rev|build)[._]?)?(\d{1,9})")


class TagVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag says: `3.12.1-alpine-r2` is the second build of the variant `alpine` of 3.12.1."""

    version: Version
    counter: int = 0
    variant: str = ""

    @property
    def order(self) -> tuple[Any, int]:
        """What to compare versions of one variant by."""
        return self.version.precedence_key, self.counter


def read_version(tag: str, variants: Sequence[str] = ()) -> TagVersion | None:
    """Returns None for a tag that is no version: one number alone, or a prerelease that breaks the rules of semver.
    `variants` are regular expressions: what follows the version, or its prerelease, and matches one is a variant."""
    match = _VERSION.fullmatch(tag)
    if not match:
        return None
    major, minor, patch, suffix, build = match.groups()
    counted = _BUILD.fullmatch(build or "")
    suffix, counter = _counted(suffix or "")
    variant = next((end for end in _ends(suffix) if matches(end, variants)), "") if variants else ""
    if variant:
        suffix, before = _counted(suffix.removesuffix(variant).removesuffix("-"))
        counter = counter or before
    try:
        version = Version(
            major=int(major),
            minor=int(minor),
            patch=int(patch or 0),
            prerelease=tuple(suffix.split(".")) if suffix else (),
        )
    except ValueError:
        return None
    return TagVersion(version=version, counter=counter or int(counted[1] if counted else 0), variant=variant)


def _counted(text: str) -> tuple[str, int]:
    """What follows a version without its counter of builds, and the counter."""
    match = _COUNTED.fullmatch(text)
    return (match["rest"] or "", int(match["counter"])) if match else (text, 0)


def _ends(text: str) -> Iterator[str]:
    """`rc.1-alpine`, `alpine`"""
    while text:
        yield text
        text = text.partition("-")[2]


def in_ranges(version: Version, ranges: Sequence[str], *, prereleases: bool, counter: int = 0) -> bool:
    """Says whether one of the ranges holds the version; no range at all holds every one. A prerelease belongs to a
    range that names it (`>=1.4.0-rc.1`), and with `prereleases` to one that holds the version it comes before.
    `counter` is that of the build."""
    if not ranges:
        return prereleases or not version.prerelease
    return any(parse_range(text).holds(version, counter, prereleases=prereleases) for text in ranges)


_NUMBER = r"(?:0|[1-9]\d{0,17}|[xX*])"
_PARTIAL = re.compile(
    rf"v?(?P<major>{_NUMBER})(?:\.(?P<minor>{_NUMBER})(?:\.(?P<patch>{_NUMBER})"
    r"(?:-(?P<prerelease>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?)?)?"
)
_SIMPLE = re.compile(r"(?P<operator>~>|[~^=]|[<>]=?|)(?P<version>\S+)")
_LOOSE_OPERATOR = re.compile(r"([<>=~^])\s+")
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "=": operator.eq,
}
_NOTHING_BELOW = Version("0.0.0-0")


class Comparator(msgspec.Struct, frozen=True):
    """One side of a range, such as `>=1.4.0`. Without a `counter`, every build of a version is that version."""

    operator: str
    version: Version
    counter: int | None = None

    def holds(self, version: Version, counter: int = 0) -> bool:
        compare = _OPERATORS[self.operator]
        if self.counter is None:
            return compare(version, self.version)
        return compare((version.precedence_key, counter), (self.version.precedence_key, self.counter))


class Range(msgspec.Struct, frozen=True):
    """`alternatives`, one of which has to hold; each with all its comparators."""

    alternatives: tuple[tuple[Comparator, ...], ...]

    def holds(self, version: Version, counter: int = 0, *, prereleases: bool = False) -> bool:
        """Counts, with `prereleases`, a prerelease that the range doesn't name as the version that it comes before."""
        release = version.truncate() if version.prerelease else version
        for comparators in self.alternatives:
            compared = version
            if version.prerelease and not any(
                each.version.prerelease and each.version.truncate() == release for each in comparators
            ):
                if not prereleases:
                    continue
                compared = release
            if all(comparator.holds(compared, counter) for comparator in comparators):
                return True
        return False


@lru_cache(maxsize=1000)
def parse_range(text: str) -> Range:
    """Raises ValueError for what is no range."""
    return Range(tuple(tuple(_comparators(part.strip())) for part in text.split("||")))


def _comparators(text: str) -> Iterator[Comparator]:
    hyphen = _HYPHEN.fullmatch(text)
    if hyphen:
        yield from _meaning(">=", hyphen[1])
        yield from _meaning("<=", hyphen[2])
        return
    for word in _LOOSE_OPERATOR.sub(r"\1", text).split():
        match = _SIMPLE.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is no version")
        yield from _meaning(match["operator"], match["version"])


def _meaning(sign: str, text: str) -> list[Comparator]:
    """Returns what an operator means before a version, or before the beginning of one: 1, 1.4, 1.4.x."""
    match = _PARTIAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no version")
    parts = [match[name] or "x" for name in ("major", "minor", "patch")]
    numbers = [int(part) for part in parts if part.isdecimal()]
    if not all(part.isdecimal() for part in parts[: len(numbers)]):
        raise ValueError(f"{text!r} is no version: a number follows one that is left open")
    if not numbers:
        return [Comparator("<", _NOTHING_BELOW)] if sign in {"<", ">"} else []
    last = len(numbers) - 1
    suffix = (match["prerelease"] or "") if last == 2 else ""
    build = _COUNTED.fullmatch(suffix)
    counter = int(build["counter"]) if build else None
    version = _version(numbers, _counted(suffix)[0])
    low = Comparator(">=", version, counter)
    if sign in {"^", "~", "~>"}:
        first = next((place for place, number in enumerate(numbers) if number), last)
        return [low, _below(numbers, first if sign == "^" else min(last, 1))]
    if last == 2:
        return [Comparator(sign or "=", version, counter)]
    end = _below(numbers, last)
    meanings = {
        ">": [Comparator(">=", end.version.truncate())],
        ">=": [low],
        "<": [Comparator("<", _version(numbers, "0"))],
        "<=": [end],
    }
    return meanings.get(sign, [low, end])


def _below(numbers: Sequence[int], place: int) -> Comparator:
    """Everything before the next number at `place`, prereleases of that one included."""
    return Comparator("<", _version((*numbers[:place], numbers[place] + 1), "0"))


def _version(numbers: Sequence[int], prerelease: str) -> Version:
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return Version(major=major, minor=minor, patch=patch, prerelease=tuple(prerelease.split(".")) if prerelease else ())


class Pattern(Protocol):
    def fullmatch(self, text: str) -> object | None: ...


@lru_cache(maxsize=4096)
def compile_pattern(text: str) -> Pattern:
    """Compiles a regular expression that users write for tags of a registry. RE2 matches in time that is linear in the
    tag, so that no expression can hang a run; it has no look-around and no backreferences
    (https://github.com/google/re2/wiki/Syntax). Raises ValueError for what isn't an expression of RE2."""
    options = re2.Options()
    options.log_errors = False
    try:
        return cast("Pattern", re2.compile(text, options))
    except (re2.error, UnicodeError) as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{text!r} is no regular expression: {reason}") from error


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Says whether one of the patterns matches the name from end to end."""
    return any(compile_pattern(pattern).fullmatch(name) is not None for pattern in patterns)


def check_patterns(texts: Iterable[str]) -> None:
    """Raises ValueError for the first that isn't a regular expression."""
    for text in texts:
        compile_pattern(text)


def check_ranges(texts: Iterable[str]) -> None:
    """Raises ValueError for the first that isn't a range."""
    for text in texts:
        try:
            parse_range(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no range of versions: write ^1.4, >=2 <3 or 1.x") from error
