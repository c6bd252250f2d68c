"""Readable names for what a bundle lists: rules that give each image a tag beside its keep-alive tag."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from oci.digest import Digest, hex_of
from oci.errors import InvalidInput, InvalidReference
from oci.reference import Reference, Repository, parse_tag
from oci.relocation.graph import Node
from oci.relocation.plan import Role

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
