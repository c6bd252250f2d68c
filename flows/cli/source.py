"""The flags that say what is copied and how, and the request they make."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from flows.cli.click_ext import boolean
from flows.cli.flags import flags_of
from oci.errors import InvalidInput
from oci.relocation.request import CopyOptions, RelocationRequest
from oci.signatures.artifacts import COSIGN

F = TypeVar("F", bound=Callable[..., Any])

_SOURCES = ("lock", "bundle", "image", "archive")
_OF_REPOSITORIES = {"repair": "--repair", "repo_based_tags": "--repo-based-tags", "names": "--name-images"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the source flags of one command line say: given fields of a RelocationRequest."""

    given: dict[str, Any]

    def check_source(self, *, ignore_bundle_check: bool) -> None:
        if len([name for name in _SOURCES if self.given.get(name)]) != 1:
            raise InvalidInput("Expected either --lock, --bundle (-b), --image (-i), or --tar as a source")
        if ignore_bundle_check and not self.given.get("image"):
            raise InvalidInput(
                "--ignore-bundle-check is for --image (-i): it copies a bundle as the plain image that it is",
                hint="use -i instead of -b, or --shallow for the bundle's own image and nothing that it lists",
            )

    def check_for_archive(self) -> None:
        useless = [flag for name, flag in _OF_REPOSITORIES.items() if self.given.get(name)]
        if useless:
            raise InvalidInput(
                f"{', '.join(useless)} can only be used when copying to a repository", hint="leave it out with --to-tar"
            )

    def request(self, to: str) -> RelocationRequest:
        return RelocationRequest(to=to, **self.given)


def source_flags(*, leave_out: Collection[str] = ()) -> Callable[[F], F]:
    """Adds the flags; the command gets them as `asked: Asked`."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_flags(*args: Any, **values: Any) -> Any:
            plain = values.pop("ignore_bundle_check")
            asked = Asked({**values.pop("source"), **values.pop("how")})
            if values.pop("cosign_signatures"):
                asked.given["artifacts"] = (*asked.given.get("artifacts", ()), COSIGN)
            asked.check_source(ignore_bundle_check=plain)
            if plain:
                asked.given["shallow"] = True
            return command(*args, asked=asked, **values)

        wrapped: Any = with_flags
        for option in (
            boolean(
                "--ignore-bundle-check", help="With -i, the same: a bundle is copied as the plain image that it is."
            ),
            boolean("--cosign-signatures", help="The same as --artifacts cosign."),
            flags_of(CopyOptions, "how", leave_out=leave_out, make=dict),
            flags_of(RelocationRequest, "source", take=_SOURCES, make=dict),
        ):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate
