"""The flags of archives: how one is to be, and how the object store is reached that it may be in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from flows.cli.click_ext import boolean, words
from oci.archive.index import FORMATS, IMGPKG
from oci.archive.s3_options import WHEN_REQUIRED, WHEN_SUPPORTED, S3Settings
from oci.errors import InvalidInput
from oci.export.parts import DEFAULT_SIZE
from oci.export.planner import ArchiveOptions
from oci.units import parse_size

F = TypeVar("F", bound=Callable[..., Any])


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.2 on
    """`4GiB`, `500MB`, or bytes. Gives bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def object_store_flags(command: F) -> F:
    """The command gets them as `store: S3Settings`."""
    return _gathered(
        command,
        "store",
        _store,
        [
            click.option("--s3-endpoint", default="", help="URL of an object store that isn't AWS."),
            click.option("--s3-region", default="", help="Its region."),
            click.option("--s3-profile", default="", help="Profile of the AWS config files."),
            click.option("--s3-role", default="", help="ARN of a role to assume."),
            boolean("--s3-path-style", help="ENDPOINT/BUCKET instead of BUCKET.ENDPOINT."),
            click.option("--s3-ca-cert-path", default="", help="PEM file to trust instead of the system's."),
            boolean("--s3-verify-certs", default=True, help="Check its certificate and host name."),
            click.option("--s3-encryption", default="", help="AES256, aws:kms or aws:kms:KEY-ID."),
            click.option("--s3-storage-class", default="", help="Storage class of the object."),
            words("--s3-tags", help="KEY=VALUE tags of the object (repeatable)."),
            click.option(
                "--s3-checksums",
                type=click.Choice([WHEN_SUPPORTED, WHEN_REQUIRED]),
                default=WHEN_SUPPORTED,
                help="when_required for a store that knows no CRC32 checksums.",
            ),
        ],
    )


def tarball_flags(command: F) -> F:
    """How an archive is to be; the command gets them as `tarball: ArchiveOptions`."""
    return _gathered(
        command,
        "tarball",
        _options,
        [
            click.option(
                "--tar-format", type=click.Choice(FORMATS), default=IMGPKG, show_default=True, help="Of --to-tar."
            ),
            click.option("--base", default="", help="Older archive, in one piece, to copy unchanged bytes from."),
            click.option(
                "--delta-from",
                default="",
                help="Leave out what the other side has: an archive, REGISTRY/REPOSITORY or a file with digests.",
            ),
            click.option(
                "--max-size", type=Size(), default=0, help="Split into volumes of so many bytes at most: 4GiB."
            ),
            click.option(
                "--part-size", type=Size(), default=DEFAULT_SIZE, help="Bytes that are written at a time, 16MiB."
            ),
        ],
    )


def _gathered(command: F, name: str, make: Callable[[dict[str, Any]], Any], options: Sequence[Any]) -> F:
    """Adds options that the command gets as one value."""
    probe: Any = lambda: None  # noqa: E731 - carries the options for a moment
    for option in options:
        option(probe)
    names = [str(option.name) for option in probe.__click_params__]

    @functools.wraps(command)
    def with_flags(*args: Any, **values: Any) -> Any:
        return command(*args, **{name: make({one: values.pop(one) for one in names})}, **values)

    wrapped: Any = with_flags
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def _store(values: dict[str, Any]) -> S3Settings:
    return S3Settings(
        endpoint=values["s3_endpoint"],
        region=values["s3_region"],
        profile=values["s3_profile"],
        role=values["s3_role"],
        path_style=values["s3_path_style"],
        ca_file=values["s3_ca_cert_path"],
        verify=values["s3_verify_certs"],
        encryption=values["s3_encryption"],
        storage_class=values["s3_storage_class"],
        tags=dict(map(_tag, values["s3_tags"])),
        checksums=values["s3_checksums"],
    )


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInput(f"{text!r} is no tag of an object", hint="write KEY=VALUE")
    return key, value


def _options(values: dict[str, Any]) -> ArchiveOptions:
    return ArchiveOptions(
        format=values["tar_format"],
        base=values["base"],
        delta_from=values["delta_from"],
        max_size=values["max_size"],
        part_size=values["part_size"],
    )
