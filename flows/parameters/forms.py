"""Forms of flows: the fields that several have, and how forms are derived from the declarations of options
(oci/options.py): flat parameters with titles, helps, bounds and defaults, in the UI and for
`prefect deployment run -p source=...`.

No parameter is a secret. Prefect stores and returns parameters in clear, so credentials are named here (blocks) or
come from the worker (environment, docker config), and an address that contains a password is refused.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, TypeVar, cast
from uuid import UUID

import msgspec
from prefect import Flow
from prefect.blocks.core import Block
from prefect.runtime import flow_run
from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from oci.errors import InvalidInput, TransshipError
from oci.mirror.config import BLOCK
from oci.options import Option, Options, field_schema, leaves_of, option, required
from oci.reference import S3_PREFIX, ArchiveName, bucket_and_key, in_object_store
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from tasks.fleet.dispatch import Fleet
from tasks.fleet.queue import ShardQueue
from tasks.run import Run, Side, failed

SLUG = "block_type_slug"
"""The key in a JSON schema by which the forms of Prefect show a drop-down of the blocks of a type."""

BlockName = Annotated[
    str, msgspec.Meta(pattern=BLOCK, min_length=1, max_length=400, extra_json_schema={SLUG: "registry-credentials"})
]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
OutputPath = Annotated[str, msgspec.Meta(max_length=4096)]
"""A file on the worker to write; empty for none."""
S3StoreName = Annotated[str, msgspec.Meta(extra_json_schema={SLUG: "s3-store"})]


def block_of(value: Any) -> Any:
    """Returns the name of a block that Prefect has loaded for what a drop-down gives, or the id in that; a name stays
    as it is."""
    if isinstance(value, Block):
        return value._block_document_name  # noqa: SLF001 - Prefect has no other way to it
    reference = value.get("$ref") if isinstance(value, Mapping) else value
    return str(reference["block_document_id"]) if isinstance(reference, Mapping) else reference


def credentials_option(example: str) -> tuple[BlockName, ...]:
    return option(
        (),
        "Registry Credentials blocks, by name; docker-registry-credentials/NAME for those of prefect-docker. Other "
        "registries use the worker's environment and docker config.",
        examples=[[example]],
        max_length=16,
        spelled=lambda value: list(map(block_of, value if isinstance(value, list | tuple) else [value])),
    )


S3_STORE = option(
    "",
    "S3 Store block, by name; aws-credentials/NAME or s3-bucket/NAME for those of prefect-aws. Empty: the worker's "
    "environment (AWS_*) says how the store is reached.",
    title="S3 Store",
    examples=["corp-archives"],
    pattern=BLOCK,
    max_length=400,
    group="advanced",
    spelled=block_of,
)
ARCHIVE: tuple[Text, ...] = option(
    (),
    "Look into this archive (a file on the worker, or s3://BUCKET/KEY; all volumes of a split one) instead of the "
    "registry. The reference says which of its images.",
    examples=[["s3://archives/config.tar"]],
    max_length=1000,
    flag="--tar",
    commas=False,
)


class OneSide(Options):
    """Base of the parameters of a flow that uses registries on one side only."""

    LAST: ClassVar[tuple[str, ...]] = ("concurrency", "credentials", "registry", "s3_store")

    concurrency: int = option(DEFAULT_CONCURRENCY, "Requests in flight at a time.", ge=1, le=64, group="advanced")
    credentials: tuple[BlockName, ...] = credentials_option("registry-example-reader")
    registry: RegistryOptions = option(RegistryOptions(), "How the registries are reached.", group="advanced")

    def run(self, name: str) -> Run:
        """Returns the run of such a flow; `name` is "source", "destination", or empty for neither. Object stores are
        reached as a form says that has `s3_store`."""
        s3_store = getattr(self, "s3_store", "")
        return Run(self.concurrency, {name: side(self.registry, self.credentials, self.concurrency, s3_store)})


_LOOK_EVERY = 10.0
"""Seconds: what helpers have done is seen in the queue, so that only lost ones are looked for."""
_LOOKS = 6
"""In the time after which a helper counts as lost."""
_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_DEPLOYMENT = r"^[^/]+/[^/]+$"


RATE_PART = option(1.0, "What this run has of each rate that a registry is allowed.", ge=0, le=1)


class FleetOptions(Options):
    """Share a large run with helpers: runs that any worker may take, and that take shards of it from a queue."""

    deployment: str = option(
        "relocate-shard/fleet",
        "FLOW/DEPLOYMENT of the helpers. Its work pool should not be the one of this run.",
        pattern=_DEPLOYMENT,
        max_length=400,
    )
    mirror_deployment: str = option(
        "mirror-shard/fleet",
        "FLOW/DEPLOYMENT of the helpers of a mirror, in the place of the one above.",
        title="Deployment for mirrors",
        pattern=_DEPLOYMENT,
        max_length=400,
    )
    helpers: int = option(
        8,
        "Runs that may help this one. As many are started as each save some seconds, or none: the report says why.",
        ge=0,
        le=100,
    )
    always: bool = option(False, "Start all helpers at once, without asking whether that makes the run faster.")
    retries: int = option(
        3, "How often a lost helper is replaced, and a shard of lost ones given to others.", ge=0, le=20
    )
    lost_after_seconds: int = option(
        90,
        "A run that sends no heartbeat for this long counts as lost. A run sends one every five seconds.",
        ge=15,
        le=3600,
    )
    start_within_seconds: int = option(
        600,
        "A run must start within this time after a worker has claimed it. Waiting for a worker doesn't count.",
        ge=15,
        le=86400,
    )

    def sent_to(self, deployment: str) -> Fleet:
        return Fleet(
            deployment=deployment,
            helpers=self.helpers,
            always=self.always,
            retries=self.retries,
            lost_after=self.lost_after_seconds,
            start_within=self.start_within_seconds,
            look_every=min(_LOOK_EVERY, self.lost_after_seconds / _LOOKS),
        )


class QueueName(Options):
    """Where a helper takes shards from: inputs of the run that it helps."""

    run: str = required("The flow run that is helped.", pattern=_UUID, max_length=36)
    name: str = required("Name of its queue.", pattern=r"^[a-z0-9-]+$", max_length=100)
    grows: bool = option(False, "More shards come while the run still plans.")
    part: float = RATE_PART

    @classmethod
    def of(cls, queue: ShardQueue) -> QueueName:
        return cls(run=str(queue.run), name=queue.name, grows=queue.grows, part=queue.part)

    def opened(self) -> ShardQueue:
        """Returns the queue for the flow run that this is called in."""
        return ShardQueue(UUID(self.run), self.name, user=str(flow_run.id), grows=self.grows, part=self.part)


def without_scheme(text: str) -> str:
    """Returns a reference or a repository without blanks around it. Raises InvalidInput for an address: it would be the
    place for a password."""
    if "://" in text.replace(S3_PREFIX, ""):
        raise InvalidInput("leave out http:// or https://")
    return text.strip()


def archive_location(text: str) -> str:
    """Returns where an archive is, in canonical form. Raises InvalidInput for an address that contains a login."""
    if "://" in text and (not in_object_store(text) or "@" in bucket_and_key(text)[0]):
        raise InvalidInput("write s3://BUCKET/KEY, without a login, or the path of a file on the worker")
    return ArchiveName.of(text.strip()).location


def archive_name(locations: tuple[str, ...]) -> ArchiveName | None:
    """Returns the archive of a form, or None where it names none. Raises InvalidInput."""
    return ArchiveName.of(*map(archive_location, locations)) if locations else None


def side(options: RegistryOptions, credentials: tuple[str, ...], concurrency: int, s3_store: str = "") -> Side:
    settings = options.with_(concurrency=concurrency)
    return Side(settings=settings, credentials=credentials, anonymous=options.anonymous, s3_store=s3_store)


P = TypeVar("P", bound=Options)
R = TypeVar("R")


def _read(form: type[P], values: Mapping[str, Any]) -> P:
    """Prefect leaves the FieldInfo of a parameter that a deployment doesn't have."""
    return form.read({key: value for key, value in values.items() if not isinstance(value, FieldInfo)})


def named(form: type[P]) -> Callable[[Callable[[P], str]], Callable[[], str]]:
    """Makes a function of a form's values the `flow_run_name` of a flow. Where they make no sense, the run keeps its
    name: an error here would give the run no state, which a worker takes for a crash."""

    def decorate(name_of: Callable[[P], str]) -> Callable[[], str]:
        def run_name() -> str:
            try:
                return name_of(_read(form, flow_run.parameters))
            except TransshipError:
                return str(flow_run.name)

        run_name.__doc__ = name_of.__doc__
        return run_name

    return decorate


def flat(function: Callable[[Any], Coroutine[Any, Any, R]]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Gives a flow's function, which takes one value of options, a keyword parameter for each of its fields. To be used
    below `@flow`. The required fields come first, then those that the form names in `FIRST`, then the others in the
    order of their declaration, groups of options and what is "advanced" last; of equals, those in `LAST`."""
    (name,) = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    form: type[Options] = hints[name]

    @functools.wraps(function)
    async def with_fields(**values: Any) -> R:
        try:
            parameters = _read(form, values)
        except TransshipError as error:  # of fields that don't go together
            return cast("R", failed(error))
        return await function(parameters)

    first: Sequence[str] = getattr(form, "FIRST", ())
    last: Sequence[str] = ("", *getattr(form, "LAST", ()))

    def place(field: Option) -> tuple[bool, int, int, bool, int]:
        named = first.index(field.name) if field.name in first else len(first)
        group = {"": 0, "advanced": 2}.get(field.group, 1)
        after = last.index(field.name) if field.name in last else 0
        return not field.required, named, group, field.options is not None, after

    fields = sorted(leaves_of(form), key=place)
    with_fields.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_parameter(field, position) for position, field in enumerate(fields)],
        return_annotation=hints.get("return", inspect.Signature.empty),
    )
    with_fields.__annotations__ = {}
    del with_fields.__wrapped__
    return with_fields


def _is_folded(field: Option) -> bool:
    """Says whether a group of rarely changed options is absent in the form until a person wants it."""
    return field.options is not None and field.group == "advanced" and not field.required


def _form_of(field: Option) -> dict[str, Any]:
    form = field_schema(field)
    if not _is_folded(field):
        return form
    if field.default is None:
        form["anyOf"][0]["title"] = field.title
        return form
    form.pop("default")  # with one, the newer UI never opens the group
    shown = {key: form.pop(key) for key in ("title", "description", "position")}
    return {"anyOf": [form | {"title": shown["title"]}, {"type": "null"}], "default": None, **shown}


def _parameter(field: Option, position: int) -> inspect.Parameter:
    shown = {key: value for key, value in field_schema(field).items() if key in ("title", "examples")}
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[Any, FormField(field)],
        default=Field(
            default=... if field.required else None if _is_folded(field) else field.show(field.default),
            description=field.help,
            json_schema_extra={**shown, "position": position},
        ),
    )


class FormField:
    """Tells pydantic how a declared option is read, and shown in a schema."""

    def __init__(self, field: Option) -> None:
        self._field = field

    def __repr__(self) -> str:
        return self._field.name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        form = _form_of(self._field)
        block = form.get("items", form)
        shown = _drop_down(block) if SLUG in block else core_schema.any_schema()
        shown = core_schema.list_schema(shown) if block is not form else shown
        return core_schema.no_info_plain_validator_function(self._read, json_schema_input_schema=shown)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        form, shown = _form_of(self._field), handler(schema)
        if SLUG in form:
            return {key: form[key] for key in form.keys() - _OF_A_BLOCK} | shown
        return form | ({"items": shown["items"]} if SLUG in form.get("items", {}) else {})

    def _read(self, value: Any) -> Any:
        """Checks the value, and leaves it as JSON has it: Prefect stores what this returns."""
        try:
            if value is None and _is_folded(self._field):
                return None
            spelled = self._field.spelled(value) if self._field.spelled is not None else value
            return self._field.show(self._field.read(self._field.show(spelled)))
        except InvalidInput as error:
            raise ValueError(str(error)) from error


_OF_A_BLOCK = frozenset({SLUG, "type", "pattern", "minLength", "maxLength"})


def _drop_down(block: dict[str, Any]) -> CoreSchema:
    """Returns the schema of a reference to a block. It is a definition with a name, and has that as its title, because
    the older UI shows a drop-down for a definition only, and the server takes the id of a block by the title."""
    title = "".join(word.capitalize() for word in block[SLUG].split("-"))
    definition = {key: block[key] for key in block.keys() & _OF_A_BLOCK} | {"title": title}
    return core_schema.str_schema(ref=f"blocks.{title}:0", metadata={"pydantic_js_functions": [lambda *_: definition]})


def alone(flow: Flow[..., Coroutine[Any, Any, R]], form: type[P]) -> Callable[[P], R]:
    """Returns a flow for programs without an event loop; `form` is the type of its parameters."""
    del form

    def run(parameters: P) -> R:
        """Runs the flow in an event loop of its own. Raises InvalidInput where one runs: it can be awaited there."""
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            hint = f"write `await {flow.name}(**parameters.to_dict())` instead"
            raise InvalidInput("an event loop is running here", hint=hint)
        result: R = asyncio.run(flow(**parameters.to_dict()))
        return result

    return run
