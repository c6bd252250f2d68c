"""Which of the artifacts that are attached to images travel along: `all`, `none`, or some by kind and artifact type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any

from msgspec import Meta

from oci.errors import InvalidInput
from oci.options import Options, option

COSIGN = "cosign"
REFERRERS = "referrers"
ALL = ("all",)
"""What is said of all artifacts that are attached to an image."""

COSIGN_TAGS = ("sig", "att", "sbom")
"""The ends of cosign's tags: signatures, attestations, SBOMs."""

ArtifactWord = Annotated[str, Meta(min_length=1, max_length=200)]

WRITE_ONE = (
    "write a policy file, and name it with --policy or `policy:`: `version: 1`, `default: reject`, "
    "`rules: [{to: HOST/*, keys: [cosign.pub]}]`"
)
"""What to do without a policy, for hints."""

_KINDS = ("all", "none", COSIGN, REFERRERS, *COSIGN_TAGS)
_TYPE = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9*?!#$&^_.+-]*/[A-Za-z0-9*?!#$&^_.+-]+")
"""An artifact type, which is a media type (RFC 6838), with `*` and `?`."""


class ArtifactSelection:
    """A selection of artifacts. Its words are kinds and patterns of artifact types; one that begins with `!` leaves
    out what it names, and with no other words everything else is taken. Raises InvalidInput for an unknown word."""

    def __init__(self, words: Iterable[str]) -> None:
        given_words = tuple(words)
        check_words(given_words)
        included = [word for word in given_words if not word.startswith("!") and word != "none"]
        excluded = [word[1:] for word in given_words if word.startswith("!")]
        self._included = frozenset(included if included or not excluded or "none" in given_words else ALL)
        self._excluded = frozenset(excluded)

    def tag(self, end: str) -> bool:
        """Whether cosign's tag with this end (`sig`, `att`, `sbom`) is wanted."""
        names = {"all", COSIGN, end}
        return bool(self._included & names) and not self._excluded & names

    def referrer(self, artifact_type: str) -> bool:
        names = {"all", REFERRERS}
        selected = bool(self._included & names) or _named(self._included, artifact_type)
        return selected and not self._excluded & names and not _named(self._excluded, artifact_type)

    @property
    def everything(self) -> bool:
        return "all" in self._included and not self._excluded

    @property
    def tags(self) -> tuple[str, ...]:
        """The ends of cosign's tags that are wanted."""
        return tuple(filter(self.tag, COSIGN_TAGS))

    @property
    def referrers(self) -> bool:
        """Whether any referrer may be wanted."""
        some = bool(self._included & {"all", REFERRERS}) or any("/" in word for word in self._included)
        return some and not self._excluded & {"all", REFERRERS}

    def __bool__(self) -> bool:
        return bool(self.tags) or self.referrers


def check_words(words: Iterable[str]) -> None:
    """Raises InvalidInput for one that is neither a kind nor a type, and for `none` beside what is to be taken."""
    words = tuple(words)
    if "none" in words and any(not word.startswith("!") for word in words if word != "none"):
        raise InvalidInput("'none' stands alone: leave it out, or the others")
    for word in words:
        name = word.removeprefix("!")
        if word == "!none" or (name not in _KINDS and not _TYPE.fullmatch(name)):
            raise InvalidInput(
                f"{word!r} is neither one of {', '.join(_KINDS)} nor an artifact type such as application/spdx+json"
            )


def check_some(words: Iterable[str]) -> None:
    """The same for a mirror, whose empty list could mean all or none."""
    words = tuple(words)
    if not words:
        raise InvalidInput("nothing is named: write all, or none")
    check_words(words)


def check_policy(path: str, *, required: bool) -> None:
    """Raises InvalidInput where signatures are required and no policy says whose."""
    if required and not path:
        raise InvalidInput("require_signatures needs a policy: whose signatures count?", hint=WRITE_ONE)


def spelled(value: Any) -> Any:
    """Returns the list of words for what people write: `all`, `cosign,sbom`, a list, or a mapping with `include` and
    `exclude`. Raises InvalidInput for another mapping, and for an unknown word."""
    words = value
    if isinstance(value, str):
        words = [word.strip() for word in value.split(",") if word.strip()]
    elif isinstance(value, Mapping):
        unknown = set(value) - {"include", "exclude"}
        if unknown:
            raise InvalidInput(f"unknown key {str(next(iter(unknown)))!r}: write include and exclude")
        include, exclude = (spelled(value.get(name, [])) for name in ("include", "exclude"))
        if not all(isinstance(part, list | tuple) for part in (include, exclude)):
            raise InvalidInput("include and exclude are lists")
        words = [*include, *(f"!{word}" for word in exclude)]
    if isinstance(words, list | tuple) and all(isinstance(word, str) for word in words):
        check_words(words)
    return words


def _named(words: frozenset[str], artifact_type: str) -> bool:
    """The types are strangers' words: `fnmatchcase` goes back to no earlier `*`. Capitals don't count in a media type
    (RFC 6838, 4.2)."""
    return any(fnmatchcase(artifact_type.lower(), word.lower()) for word in words if "/" in word)


class GateOptions(Options):
    """Which images a copy or a mirror lets in."""

    policy: str = option(
        "",
        "A file on the machine of the run that says which signatures an image needs: our YAML, or policy.json as "
        "skopeo has it. What it refuses isn't copied.",
        title="Signature policy",
        examples=["/etc/transship/policy.yaml", "/etc/containers/policy.json"],
        max_length=2000,
        group="signatures",
    )
    require_signatures: bool = option(
        False,
        "What the policy accepts without asking for a signature is refused, too. Needs a policy.",
        group="signatures",
    )


class MirrorReceipts(Options):
    """What a run of a mirror leaves in writing, and who signs it."""

    folder: str = option(
        "",
        "On the machine of the run: each run writes there, as NAME.receipt.json, what the tags of the mirror show at "
        "its destination; NAME@2.receipt.json for a second one. An immutable tag costs a request then.",
        examples=["/var/lib/transship/receipts"],
        max_length=2000,
    )
    attach: bool = option(
        False, "Attach a signed receipt to each image that was copied, as cosign attaches attestations."
    )
    sign: str = option(
        "",
        "Private key on the machine of the run, PEM or cosign's with COSIGN_PASSWORD. It signs receipts, and archives "
        "that the mirror writes (NAME.sigstore.json).",
        title="Sign with",
        examples=["/etc/transship/cosign.key"],
        max_length=2000,
    )
    signing_key: str = option(
        "",
        "Name of a Signing Key block, for runs on a worker, in the place of a file.",
        examples=["corp-receipts"],
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        max_length=400,
    )

    def __post_init__(self) -> None:
        if self.attach and not (self.sign or self.signing_key):
            raise InvalidInput("only a signed receipt can be attached", hint="name the key: sign, or signing_key")


class MirrorArtifacts(GateOptions):
    """What a mirror takes of that which is attached to images, which images it lets in, and what it leaves in
    writing."""

    artifacts: tuple[ArtifactWord, ...] = option(
        ALL,
        "What travels along with each image: all, none, or `include` and `exclude` with lists of cosign (what is kept "
        "under tags; sig, att and sbom are its kinds), referrers (what names an image as its subject), and artifact "
        "types, with * and ?. In a list, ! leaves out.",
        title="Attached artifacts",
        examples=[["all"], ["all", "!application/spdx+json"]],
        spelled=spelled,
        max_length=50,
        check=check_some,
    )
    referrers_every: timedelta = option(
        timedelta(hours=24),
        "How often an image in place is asked for what was attached to it since, as a referrer; what is attached "
        "under tags costs no request, and every run sees it. A check asks always.",
        examples=["6h"],
    )

    receipts: MirrorReceipts = option(
        MirrorReceipts(), "What a run leaves in writing, and who signs it.", group="signatures"
    )

    @property
    def wanted_artifacts(self) -> ArtifactSelection:
        return ArtifactSelection(self.artifacts)
