"""What a mirror takes, and how: declared once for mirrors.yaml, for forms and for editors."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec

from oci.bundle.tagnames import check_backup
from oci.descriptor import Platform
from oci.documents import recurrence
from oci.errors import InvalidInput
from oci.options import Options, option
from oci.prune.policy import check_patterns, check_ranges
from oci.registry.options import DEFAULT_CONCURRENCY
from oci.signatures.artifacts import MirrorArtifacts
from oci.units import show_duration

Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Range = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
PlatformText = Annotated[str, msgspec.Meta(max_length=100)]


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


class CheckedOptions(Options):
    """Options whose constructor runs the checks of single fields and raises InvalidInput that begins with the field's
    name; the reader of mirrors.yaml runs each by itself, to find every mistake."""

    def __post_init__(self) -> None:
        for name, field in type(self).declared.items():
            try:
                if field.check is not None:
                    field.check(getattr(self, name))
            except (ValueError, InvalidInput) as error:
                raise InvalidInput(f"{name}: {error}") from error


def _check_platforms(texts: tuple[str, ...]) -> None:
    for text in texts:
        Platform.parse(text)


class TagRule(CheckedOptions):
    """A set of tags. A tag belongs to it when every part that is given says so."""

    allow: tuple[Pattern, ...] = option(
        (),
        "Regular expressions that a tag must match from end to end, one of them. Empty: any tag. A plain name, such "
        "as 1.25 or latest, means exactly this tag: it needs no list, and fails when it is absent.",
        examples=[["latest", r"v\d+\.\d+\.\d+"]],
        max_length=100,
        commas=False,
        check=check_patterns,
    )
    deny: tuple[Pattern, ...] = option(
        (),
        "Regular expressions that a tag must not match from end to end. Another rule may take such a tag.",
        examples=[[r".*-rc\.?\d*"]],
        max_length=100,
        commas=False,
        check=check_patterns,
    )
    semver: tuple[Range, ...] = option(
        (),
        "Ranges such as ^1.4, >=2 <3 or 1.x, one of which must hold the version that the tag is (1.4.0, v1.4.0, 1.4), "
        "or that it is a build of (1.4.0-r3). Tags that are no version don't belong then.",
        title="Versions",
        examples=[["^1.4", ">=2 <3"]],
        max_length=50,
        commas=False,
        check=check_ranges,
    )
    prereleases: bool = option(
        False,
        "Take 1.4.0-rc.1, and 1.4.0-alpine if it is no variant, for versions; otherwise they don't count as such.",
    )
    variants: tuple[Pattern, ...] = option(
        (),
        "Regular expressions for what may follow a version: alpine takes 3.12-alpine for 3.12, with a Latest of its "
        "own. Otherwise it is a prerelease. Tags without a variant belong as well.",
        examples=[["alpine", r"debian-\d+"]],
        max_length=20,
        commas=False,
        check=check_patterns,
    )
    optional: bool = option(
        False, "A plain name in Allow that is absent at the source is left out, and isn't a failure."
    )
    latest: int = option(
        0, "Only so many of the tags that are left, the latest ones, of each variant; 0 for all.", ge=0, le=100_000
    )
    latest_by: LatestBy = option(
        LatestBy.SEMVER,
        "semver: by version, tags that are none don't count. created: by the time each image was made, which takes "
        "requests for each tag.",
    )
    minimum_age: timedelta = option(
        timedelta(),
        "A tag is taken when its image was made so long ago: time to learn what is wrong with it. What appears after "
        "the first run on this machine counts from when it was first seen, whatever the image says.",
        examples=["7d"],
    )
    maximum_age: timedelta = option(
        timedelta(), "A tag whose image was made longer ago isn't taken.", examples=["365d"]
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum_age and self.maximum_age <= self.minimum_age:
            raise InvalidInput("nothing is older than minimum_age and younger than maximum_age at once")

    @property
    def needs_ages(self) -> bool:
        return bool(self.minimum_age or self.maximum_age)

    @property
    def asks_for_times(self) -> bool:
        """Whether it has to be known when images were made, for their ages or their order."""
        return self.needs_ages or bool(self.latest and self.latest_by is LatestBy.CREATED)


class Schedule(CheckedOptions):
    """When a mirror runs by itself: one of cron, interval and rrule."""

    cron: str = option(
        "",
        "Minute, hour, day of month, month, day of week.",
        examples=["0 3 * * *"],
        max_length=200,
        check=recurrence.check_cron,
    )
    interval: timedelta = option(
        timedelta(), "Time from one start to the next.", examples=["6h"], check=recurrence.check_interval
    )
    rrule: str = option(
        "",
        "RFC 5545, without DTSTART.",
        title="Recurrence rule",
        examples=["FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=3"],
        max_length=1000,
        check=recurrence.check_rrule,
    )
    timezone: str = option(
        "UTC",
        "In which cron and rrule are read; daylight saving is followed.",
        title="Time zone",
        examples=["Europe/Berlin"],
        max_length=100,
        check=recurrence.check_zone,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(map(bool, (self.cron, self.interval, self.rrule))) != 1:
            raise InvalidInput("give exactly one of cron, interval and rrule")

    def __str__(self) -> str:
        return show_duration(self.interval) if self.interval else f"{self.cron or self.rrule} ({self.timezone})"

    @property
    def rule(self) -> str:
        """The recurrence rule with its start, in the time zone of the schedule."""
        return f"DTSTART:{recurrence.EPOCH:%Y%m%dT%H%M%S}\n{self.rrule.upper().removeprefix('RRULE:')}"

    def anchor(self, name: str) -> datetime:
        """A time at which the interval of a mirror begins, in UTC."""
        return recurrence.anchor(self.interval, name)

    def following(self, moment: datetime, name: str) -> datetime | None:
        """The first start of a mirror after a moment, in UTC, as Prefect computes it; None when there is none."""
        if self.interval:
            begin = self.anchor(name)
            return begin + ((moment - begin) // self.interval + 1) * self.interval
        if self.cron:
            return recurrence.after_cron(self.cron, self.timezone, moment)
        return recurrence.after_rrule(self.rrule, self.timezone, moment)


class Limits(Options):
    """How much of a mirror happens at a time, and in one run."""

    concurrency: int = option(DEFAULT_CONCURRENCY, "Images, and blobs, on their way at the most.", ge=1, le=64)
    images_per_run: int = option(
        0,
        "A run copies at most this many changed images, and the next run copies more; 0 for no limit. Keeps a first "
        "run within a registry's quota.",
        ge=0,
        le=1_000_000,
    )


class Policy(CheckedOptions, MirrorArtifacts):
    """What `defaults` may say for all mirrors, and each mirror for itself."""

    tags: tuple[TagRule, ...] = option(
        (),
        "Rules: a tag is taken when one of them takes it. Empty: every tag. A rule of a mirror has the parts of the "
        "default rules that it doesn't give itself.",
        max_length=50,
    )
    never: tuple[Pattern, ...] = option(
        (),
        "Regular expressions, matched from end to end: no rule takes such a tag. Those of the defaults are added.",
        examples=[[r".*-(dev|snapshot)"]],
        max_length=100,
        check=check_patterns,
    )
    min_tags: int = option(
        0,
        "Fail, and copy nothing, when the rules take fewer tags than this: the source was emptied, by mistake.",
        title="Minimum of tags",
        ge=0,
        le=1_000_000,
    )
    platforms: tuple[PlatformText, ...] = option(
        (),
        "Only these of every index, which is rewritten and gets a new digest. Empty: all, as they are.",
        examples=[["linux/amd64", "linux/arm64"]],
        max_length=50,
        check=_check_platforms,
    )
    immutable: tuple[Pattern, ...] = option(
        (),
        "Regular expressions, matched from end to end. Such a tag is never asked for again once it is there, and "
        "never overwritten; a check tells when it moved at the source.",
        title="Immutable tags",
        examples=[[r"v?\d+\.\d+\.\d+.*"]],
        max_length=100,
        check=check_patterns,
    )
    backup: str = option(
        "",
        "Before a tag moves at a destination, its old image gets this one, of {tag}, {short} and {date}.",
        title="Backup tag",
        examples=["{tag}-before-{date}"],
        max_length=128,
        check=check_backup,
    )
    keep_alive: KeepAlive = option(
        KeepAlive.NEEDED,
        "needed: only images that get no tag of their own, such as those of a bundle. always: every image, so that a "
        "digest outlives its tag. readable: always, with the image's name in the tag.",
        title="Keep-alive tags",
    )
    schedule: Schedule | None = option(
        None, "When it runs by itself. Without a schedule, it runs only when it is started."
    )
    on_push: bool = option(
        False, "Make a second deployment that a push to the source starts, by the receiver.", title="Start on push"
    )
    limits: Limits = option(Limits(), "How much happens at a time, and in one run.")
    on_failure: OnFailure = option(
        OnFailure.CONTINUE,
        "continue: a failed image doesn't stop the others. stop: no further image of this mirror is begun.",
    )
