"""What a mirror takes, and how: the parts of a mirror's configuration, as models that explain themselves in a form and
in an editor."""

from __future__ import annotations

import re
import warnings
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from oci.descriptor import Platform
from oci.errors import InvalidInput
from oci.mirror.durations import Duration
from oci.relocation.request import Artifact
from oci.versions import parse_range

STRICT = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,\-?#]+")
_PATTERN_LIMIT = 500


class LatestBy(StrEnum):
    """What makes a tag later than another."""

    SEMVER = "semver"
    CREATED = "created"


class KeepAlive(StrEnum):
    """Which images get a tag that holds them against a registry's garbage collection."""

    NEEDED = "needed"
    ALWAYS = "always"
    READABLE = "readable"


class OnFailure(StrEnum):
    """What a failed image means for the others of its mirror."""

    CONTINUE = "continue"
    STOP = "stop"


def checked_pattern(text: str) -> str:
    """Raises ValueError for what isn't a regular expression."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=_PATTERN_LIMIT)]


class TagRule(BaseModel):
    """A set of tags. A tag belongs to it when every part that is given says so."""

    model_config = STRICT | ConfigDict(title="Tag rule")

    allow: list[Pattern] = Field(
        default=[],
        title="Allow",
        description="Regular expressions that a tag must match from end to end, one of them. Empty: any tag.",
        examples=[["latest", r"v\d+\.\d+\.\d+"]],
        max_length=100,
    )
    deny: list[Pattern] = Field(
        default=[],
        title="Deny",
        description="Regular expressions that a tag must not match from end to end, none of them.",
        examples=[[r".*-rc\.?\d*"]],
        max_length=100,
    )
    semver: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default=[],
        title="Versions",
        description="Ranges such as ^1.4, >=2 <3 or 1.x, one of which must hold the version that the tag is (1.4.0, "
        "v1.4.0, 1.4). Tags that are no version don't belong then.",
        examples=[["^1.4", ">=2 <3"]],
        max_length=50,
    )
    prereleases: bool = Field(
        default=False,
        title="Prereleases",
        description="Take 1.4.0-rc.1 and 1.4.0-alpine for versions of 1.4.0; otherwise they don't count as versions.",
    )
    latest: int = Field(
        default=0,
        title="Latest",
        description="Only so many of the tags that are left, the latest ones; 0 for all.",
        ge=0,
        le=100_000,
    )
    latest_by: LatestBy = Field(
        default=LatestBy.SEMVER,
        title="Latest by",
        description="semver: by version, tags that are none don't count. created: by the time each image was made, "
        "which takes requests for each tag.",
    )
    minimum_age: Duration = Field(
        default=timedelta(),
        title="Minimum age",
        description="A tag is taken when its image was made so long ago: time for others to find out what is wrong "
        "with it.",
        examples=["7d"],
    )
    maximum_age: Duration = Field(
        default=timedelta(),
        title="Maximum age",
        description="A tag whose image was made longer ago isn't taken.",
        examples=["365d"],
    )

    @field_validator("allow", "deny")
    @classmethod
    def _patterns(cls, texts: list[str]) -> list[str]:
        return [checked_pattern(text) for text in texts]

    @field_validator("semver")
    @classmethod
    def _ranges(cls, texts: list[str]) -> list[str]:
        for text in texts:
            try:
                parse_range(text)
            except ValueError as error:
                raise ValueError(f"{text!r} is no range of versions: write ^1.4, >=2 <3 or 1.x") from error
        return texts

    @model_validator(mode="after")
    def _ages_leave_room(self) -> Self:
        if self.maximum_age and self.maximum_age <= self.minimum_age:
            raise ValueError("nothing is older than minimum_age and younger than maximum_age at once")
        return self

    @property
    def needs_ages(self) -> bool:
        return bool(self.minimum_age or self.maximum_age)


class Schedule(BaseModel):
    """When a mirror runs by itself: one of cron, interval and rrule."""

    model_config = STRICT | ConfigDict(title="Schedule")

    cron: str = Field(
        default="",
        title="Cron",
        description="Minute, hour, day of month, month, day of week.",
        examples=["0 3 * * *"],
        max_length=200,
    )
    interval: Duration = Field(
        default=timedelta(),
        title="Interval",
        description="Time from one start to the next.",
        examples=["6h"],
    )
    rrule: str = Field(
        default="",
        title="Recurrence rule",
        description="RFC 5545, without DTSTART.",
        examples=["FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=3"],
        max_length=1000,
    )
    timezone: str = Field(
        default="UTC",
        title="Time zone",
        description="In which cron and rrule are read; daylight saving is followed.",
        examples=["Europe/Berlin"],
        max_length=100,
    )

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, text: str) -> str:
        fields = text.split()
        if text and (len(fields) != 5 or not all(_CRON_FIELD.fullmatch(one) for one in fields)):
            raise ValueError(f"{text!r} has not the five fields of cron: minute, hour, day, month, weekday")
        return text

    @field_validator("rrule")
    @classmethod
    def _rule(cls, text: str) -> str:
        if text and not re.fullmatch(r"(RRULE:)?[A-Z]+=[^;=]+(;[A-Z]+=[^;=]+)*", text):
            raise ValueError(f"{text!r} is no recurrence rule: write FREQ=WEEKLY;BYDAY=MO")
        if text and "FREQ=" not in text:
            raise ValueError("a recurrence rule needs FREQ=")
        return text

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{name!r} is no time zone that this machine knows") from error
        return name

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(map(bool, (self.cron, self.interval, self.rrule))) != 1:
            raise ValueError("give exactly one of cron, interval and rrule")
        return self


class Limits(BaseModel):
    """How much of a mirror happens at a time, and in one run."""

    model_config = STRICT | ConfigDict(title="Mirror limits")

    concurrency: int = Field(
        default=8, title="Concurrency", description="Images, and blobs, on their way at a time.", ge=1, le=64
    )
    images_per_run: int = Field(
        default=0,
        title="Images per run",
        description="The rest of what changed waits for the next run; 0 for no limit. Keeps a first run within a "
        "registry's quota.",
        ge=0,
        le=1_000_000,
    )


class Policy(BaseModel):
    """What `defaults` may say for all mirrors, and each mirror for itself."""

    model_config = STRICT | ConfigDict(title="Policy")

    tags: list[TagRule] = Field(
        default=[],
        title="Tags",
        description="Rules: a tag is taken when one of them takes it. Empty: every tag.",
        max_length=50,
    )
    platforms: list[Annotated[str, Field(max_length=100)]] = Field(
        default=[],
        title="Platforms",
        description="Only these of every index, which is rewritten and gets a new digest. Empty: all, as they are.",
        examples=[["linux/amd64", "linux/arm64"]],
        max_length=50,
    )
    artifacts: list[Artifact] = Field(
        default=[],
        title="Attached artifacts",
        description="cosign: signatures, attestations and SBOMs kept under tags. referrers: whatever names an image as "
        "its subject.",
        max_length=2,
    )
    immutable: list[Pattern] = Field(
        default=[],
        title="Immutable tags",
        description="Regular expressions, matched from end to end. Such a tag is never asked for again once it is "
        "there, and never overwritten; a check tells when it moved at the source.",
        examples=[[r"v?\d+\.\d+\.\d+.*"]],
        max_length=100,
    )
    keep_alive: KeepAlive = Field(
        default=KeepAlive.NEEDED,
        title="Keep-alive tags",
        description="needed: only images that get no tag of their own, such as those of a bundle. always: every image, "
        "so that a digest outlives its tag. readable: always, with the image's name in the tag.",
    )
    schedule: Schedule | None = Field(
        default=None, title="Schedule", description="When it runs by itself. Without one, only when it is told to."
    )
    limits: Limits = Field(default=Limits(), title="Limits", description="How much happens at a time, and in one run.")
    on_failure: OnFailure = Field(
        default=OnFailure.CONTINUE,
        title="On failure",
        description="continue: a failed image doesn't stop the others. stop: no further image of this mirror is begun.",
    )
    require_signatures: bool = Field(
        default=False,
        title="Require signatures",
        description="An image without a signature at the source isn't taken. Whose signature it is isn't looked at.",
    )

    @field_validator("immutable")
    @classmethod
    def _patterns(cls, texts: list[str]) -> list[str]:
        return [checked_pattern(text) for text in texts]

    @field_validator("platforms")
    @classmethod
    def _platforms(cls, texts: list[str]) -> list[str]:
        for text in texts:
            try:
                Platform.parse(text)
            except InvalidInput as error:
                raise ValueError(str(error)) from error
        return texts
