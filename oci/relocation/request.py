"""What is asked for: one source, one destination, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from oci.descriptor import Platform
from oci.digest import Digest, hex_of
from oci.errors import InvalidInput, InvalidReference
from oci.reference import ArchiveName, Reference, Repository, StoreName, parse_store, parse_tag
from oci.relocation.plan import Node, Role

COSIGN = "cosign"
REFERRERS = "referrers"


class Artifact(StrEnum):
    """What may travel along with an image."""

    COSIGN = COSIGN
    REFERRERS = REFERRERS


ARTIFACTS = frozenset(artifact.value for artifact in Artifact)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocationRequest:
    """Exactly one of `bundle`, `image`, `lock` and `archive` names the source: a reference
    (`REGISTRY/REPOSITORY[:TAG][@DIGEST]` or `oci:PATH[:TAG]`), the path of an ImagesLock or BundleLock file, or where
    an archive is. Raises InvalidInput when it makes no sense.
    """

    bundle: str = ""
    image: str = ""
    lock: str = ""
    archive: tuple[str, ...] = ()
    """A file or `s3://BUCKET/KEY`, or all the volumes that an archive was split into, in any order."""
    only: tuple[str, ...] = ()
    """Of an archive, these images and what belongs to them: digests, tags, or references as the archive has them."""
    to: str
    """`REGISTRY/REPOSITORY`, `oci:PATH` or `archive:LOCATION`, without a tag."""
    tags: tuple[str, ...] = ()
    """Names at the destination, instead of the tag that the source carries."""
    artifacts: frozenset[str] = frozenset()
    """What travels along with each image: COSIGN (`.sig`, `.att` and `.sbom` tags), REFERRERS."""
    repo_based_tags: bool = False
    """Keep-alive tags that show where an image came from."""
    include_non_distributable: bool = False
    platforms: tuple[str, ...] = ()
    """Leave out the other platforms of every index; such an index is rewritten and has a new digest."""
    shallow: bool = False
    """The bundle's own image and nothing that it lists."""
    sure_of_kind: bool = False
    """Of an `image` that is there already, ask once more whether it came as a bundle, and refuse it as otherwise."""
    names: tuple[str, ...] = ()
    """Rules that give listed images a readable tag as well; see oci.relocation.request.NameRule."""
    either: bool = False
    """`image` may turn out to be a bundle; then all that it lists comes along."""
    tag_holds: bool = False
    """What gets a tag of its own gets no keep-alive tag beside it."""
    repair: bool = False
    """Take nothing at the destination for granted: every blob is asked for, and what was lost is sent again."""

    def __post_init__(self) -> None:
        given = [name for name in ("bundle", "image", "lock", "archive") if getattr(self, name)]
        if len(given) != 1:
            raise InvalidInput(
                f"expected one source, got {', '.join(given) or 'none'}",
                hint="give exactly one of bundle, image, lock, archive",
            )
        if self.only and not self.archive:
            raise InvalidInput("only an archive can be asked for some of its images")
        unknown = self.artifacts - ARTIFACTS
        if unknown:
            raise InvalidInput(
                f"unknown artifacts: {', '.join(sorted(unknown))}", hint=f"known are {', '.join(sorted(ARTIFACTS))}"
            )
        if self.either and not self.image:
            raise InvalidInput("only what is asked for as an image can be either an image or a bundle")
        for tag in self.tags:
            parse_tag(tag)
        for platform in self.platforms:
            Platform.parse(platform)
        parse_store(self.to)
        if self.platforms and (self.bundle or self.archive):
            raise InvalidInput(
                "platforms can't be left out of a bundle, whose lock pins whole indexes by digest, nor of an archive",
                hint="copy the images with -i or an ImagesLock",
            )
        if self.tags and self.lock:
            raise InvalidInput("a lock names its own tag; other tags can't be given with it")

    @property
    def asked(self) -> str:
        """The source, as it was asked for."""
        return self.bundle or self.image or self.lock or ", ".join(self.archive)

    @property
    def archive_name(self) -> ArchiveName:
        return ArchiveName.of(*self.archive)

    @property
    def destination(self) -> StoreName:
        return parse_store(self.to)


KBLD_ID = "kbld.carvel.dev/id"
"""The annotation in which kbld keeps the name, with its tag, that a digest was resolved from."""

_FIELDS = ("name", "path", "tag", "short")


@dataclass(frozen=True, slots=True)
class NameRule:
    """`pattern` is a glob for the repository an image comes from; `template` makes the tag out of `{name}` (the last
    part of that repository), `{path}` (all of it, joined by `-`), `{tag}` (the original tag, where its lock remembers
    one) and `{short}` (12 characters of the digest)."""

    pattern: str
    template: str

    @classmethod
    def parse(cls, text: str) -> NameRule:
        """`PATTERN=TEMPLATE`, or a TEMPLATE alone for every image."""
        pattern, given, template = text.rpartition("=")
        rule = cls(pattern if given else "*", template)
        try:
            parse_tag(rule.template.format(**dict.fromkeys(_FIELDS, "x")))
        except (KeyError, ValueError, IndexError, InvalidReference) as error:
            raise InvalidInput(
                f"{text!r} is no rule for names", hint="write PATTERN=TEMPLATE with {name}, {path}, {tag} or {short}"
            ) from error
        return rule

    def tag_of(self, origin: Reference, digest: Digest, annotations: Mapping[str, str]) -> str:
        """Empty when the rule is for other images, or wants a tag that isn't remembered."""
        if not fnmatchcase(str(origin.repository), self.pattern):
            return ""
        repository = origin.repository
        path = repository.path if isinstance(repository, Repository) else "image"
        tag = _remembered_tag(annotations)
        if "{tag}" in self.template and not tag:
            return ""
        name = path.rpartition("/")[2]
        return self.template.format(name=name, path=path.replace("/", "-"), tag=tag, short=hex_of(digest)[:12])[:128]


def readable_names(nodes: Iterable[Node], rules: Iterable[NameRule]) -> dict[Digest, str]:
    """The tag of each listed image for which a rule has one; the first rule that does counts.

    Raises InvalidInput when two images would get the same name.
    """
    kept = tuple(rules)
    named: dict[str, Node] = {}
    for node in nodes:
        if node.role not in (Role.LISTED, Role.NESTED) or node.origin is None:
            continue
        tag = next((tag for rule in kept if (tag := rule.tag_of(node.origin, node.digest, node.annotations))), "")
        other = named.setdefault(tag, node)
        if tag and other is not node:
            raise InvalidInput(
                f"{node.origin} and {other.origin} would both be named {tag!r}",
                hint="put {short} or {path} into the rule, or give one of them a rule of its own",
            )
    return {node.digest: tag for tag, node in named.items() if tag}


def _remembered_tag(annotations: Mapping[str, str]) -> str:
    try:
        return Reference.parse(annotations.get(KBLD_ID, "")).tag if annotations.get(KBLD_ID) else ""
    except InvalidReference:
        return ""
