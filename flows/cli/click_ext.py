"""Click as imgpkg's scripts need it: booleans as `--flag` and `--flag=false`, lists by repetition and by commas, flags
of the whole program anywhere, no positional arguments, help in sections."""

from __future__ import annotations

import importlib
import re
import signal
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from flows.cli.output import ExitCode, Output, exit_code
from oci.errors import CancelToken, InvalidInput

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from oci.archive.options import S3Options
    from oci.registry.options import RegistryOptions


class Invocation:
    """What every level of one command line shares; click's `obj`, and the first argument of every `Verb`."""

    registry: RegistryOptions
    """How registries are reached; for commands with `registry_flags`, as `logins` are."""

    def __init__(self) -> None:
        self.output = Output()
        self.logins: dict[str, str] = {}
        """What was given to flags of logins, by their names."""
        self.store: S3Options | None = None
        """How the object store of archives is reached; for commands with `store_flags`."""
        self.concurrency: int | None = None
        self.cancel = CancelToken()
        self.resume_hint = "run the same again"
        """What an interrupted command leaves and how to go on, for the person who interrupted it."""
        self.drain: Callable[[], None] | None = None
        """Makes the command begin nothing more, and returns when what is on its way is done, or has had its time. None
        where a command only breaks off."""
        self.drained_by = frozenset({signal.SIGTERM})
        """Signals at the first of which the command drains; at others, and at the second, it breaks off."""


_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})

F = TypeVar("F", bound=Callable[..., Any])


class CommandGroup(NamedTuple):
    """A group of commands below the root: what help says of it, and its `members` as a Tree has them."""

    explanation: str
    members: dict[str, tuple[str, str]]


Members = Mapping[str, tuple[str | CommandGroup, str]]
_ALIASES = {"ls": "list"}


def boolean(*names: str, default: bool = False, help: str, **more: Any) -> Callable[[F], F]:  # noqa: A002 - click's word
    """A flag that also takes `=true` and `=false`. `names` as for click, without the negated form."""
    long = next(name for name in names if name.startswith("--"))
    return click.option(f"{long}/--no-{long[2:]}", *(n for n in names if n != long), default=default, help=help, **more)


def words(*names: str, help: str, **more: Any) -> Callable[[F], F]:  # noqa: A002
    """A list: the flag repeated, or values with commas between them. Gives a tuple of texts."""
    return click.option(*names, multiple=True, help=help, **{"callback": _split, **more})


def _split(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    del context, parameter
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


class Number(click.IntRange):
    """A whole number within bounds."""

    name = "number"


def _add_everywhere(command: click.Command) -> None:
    """Adds the flags that every command takes, before and after its name."""
    for option in (
        boolean("--tty", help="Behave as if standard output were a terminal.", expose_value=False, callback=_note),
        boolean("--color", default=True, help="Colours, on a terminal only.", expose_value=False, callback=_note),
        boolean("--json", help="One JSON document instead of text.", expose_value=False, callback=_note),
        words("--column", help="Only these columns of tables.", expose_value=False, callback=_note_columns),
        boolean("--debug", help="Requests to registries on standard error.", expose_value=False, callback=_note),
        boolean("-y", "--yes", help="With `tag delete`: delete the tag.", expose_value=False, callback=_note),
        boolean("--quiet", help="No summary line.", expose_value=False, callback=_note),
    ):
        option(command)


def _note(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Hands a flag that was given at any level of the command line to the output."""
    output = context.ensure_object(Invocation).output
    if context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE:
        output.set(str(parameter.name), value)


def _note_columns(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> None:
    context.ensure_object(Invocation).output.columns += _split(context, parameter, values)


def extra_arguments(context: click.Context, extra: Sequence[str]) -> click.UsageError:
    """In imgpkg's words. Other tools take references without a flag."""
    error = click.UsageError(f"command '{context.command_path}' does not accept extra arguments '{extra[0]}'", context)
    flags = {name for option in context.command.params for name in option.opts}
    if "/" in extra[0]:
        error.possibilities = [f"{flag} {extra[0]}" for flag in ("-b", "-i") if flag in flags]  # type: ignore[attr-defined]
    return error


def sentence_of(error: click.UsageError) -> str:
    """What was wrong with the command line. imgpkg's words where it has some (those of Go's package pflag)."""
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        return f"unknown flag: {name}" if name.startswith("--") else f"unknown shorthand flag: {name[1:2]!r} in {name}"
    if isinstance(error, click.BadOptionUsage):
        name = error.option_name
        return f"flag needs an argument: {name if name.startswith('--') else f'{name[1:2]!r} in {name}'}"
    return error.format_message()


def hint_of(error: click.UsageError, program: str) -> str:
    context = error.ctx
    meant = getattr(error, "possibilities", None)
    if meant and context is not None:
        hidden = {name for option in context.command.get_params(context) for name in option.secondary_opts}
        meant = [name for name in meant if name not in hidden]
    help_command = f"{context.command_path if context is not None else program} --help"
    return f"did you mean {' or '.join(meant)}? {help_command} lists all" if meant else help_command


class Command(click.Command):
    """A command that takes the flags of every command. Its function gets click's context."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        _add_everywhere(self)


class Verb(Command):
    """A command with examples: what stands behind its name. Its function gets the invocation. `--help` shows what most
    calls need, `--help-all` every flag; `rare` names flags of this command that the first leaves out. The end of a
    `service` has no output."""

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), rare: Collection[str] = (), service: bool = False, **more: Any
    ) -> None:
        super().__init__(*args, **{"context_settings": {"allow_extra_args": True}, **more})
        self.callback = self.callback and click.pass_obj(self.callback)
        self.examples = examples
        self._service = service
        self.rare = frozenset(option for option in self.params if option.opts[0] in rare or _is_rare(option))
        if self.rare:
            self.params.append(
                click.Option(
                    ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all, help=_ALL_HELP
                )
            )
        for option in self.params:
            if option.metavar in (None, "TEXT") and option.opts[0] in _METAVARS:
                option.metavar = _METAVARS[option.opts[0]]
            if names_images(option):
                option.shell_complete = _references  # type: ignore[method-assign]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with click.core.augment_usage_errors(ctx):  # so that hints name this command
            args = spelled_out(self, args)
            if ctx.resilient_parsing:
                return super().parse_args(ctx, args)
            # Of a setting the last counts: a script may add its own to those of another. Of a flag that names what is
            # worked on click, as Go's flags do, would leave out all but the last.
            for option, times in Counter(self.make_parser(ctx).parse_args(list(args))[2]).items():
                if times > 1 and isinstance(option, click.Option) and not option.multiple and option.metavar in _THINGS:
                    raise click.UsageError(f"{option.opts[-1]} takes one {option.metavar}, and is here {times} times")
            if extra := super().parse_args(ctx, args):
                raise extra_arguments(ctx, extra)
            return []

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command and ends its output. An error of usage that has no hint refers to the command's help."""
        try:
            code = super().invoke(ctx)
        except InvalidInput as error:
            if not error.hint and exit_code(error) is ExitCode.USAGE:
                error.hint = f"{ctx.command_path} --help"
            raise
        if not self._service:
            ctx.ensure_object(Invocation).output.finish(succeeded=code is not ExitCode.DRIFT)
        return code

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{ctx.command_path} {example}".rstrip() + "\n")
        write_options(self, ctx, formatter)


def verb(name: str, *examples: str, rare: Collection[str] = (), service: bool = False) -> Callable[[F], Verb]:
    """Makes a Verb of a function."""
    return click.command(name, cls=Verb, examples=examples, rare=rare, service=service)


class Tree(click.Group):
    """A group whose commands are imported when they are called: `members` maps a name to `module:attribute`, or to a
    group, and the line that help shows for it."""

    def __init__(self, *args: Any, members: Members, **more: Any) -> None:
        super().__init__(*args, **more)
        _add_everywhere(self)
        self._members = members

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with click.core.augment_usage_errors(ctx):
            return super().parse_args(ctx, spelled_out(self, args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            if args[0].startswith("-"):
                raise click.NoSuchOption(args[0], ctx=ctx)
            import difflib  # noqa: PLC0415 - for names that are mistyped

            error = extra_arguments(ctx, args)
            error.possibilities = difflib.get_close_matches(args[0], self._members)  # type: ignore[attr-defined]
            raise error
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self._members)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        name = cmd_name if cmd_name in self._members else _ALIASES.get(cmd_name, "")
        place, _ = self._members.get(name, (None, ""))
        if place is None:
            return None
        if isinstance(place, CommandGroup):
            return _group(name, place)
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.lines())
        write_options(self, ctx, formatter)

    def lines(self) -> list[tuple[str, str]]:
        """Each command with its line, without importing one."""
        return [(name, line) for name, (_, line) in self._members.items()]


def _group(name: str, group: CommandGroup) -> Tree:
    """Returns a Tree that needs the name of a command: without one it raises click.UsageError, in imgpkg's words."""

    @click.command(name, cls=Tree, members=group.members, help=group.explanation, invoke_without_command=True)
    @click.pass_context
    def called(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            raise click.UsageError(f"Use one of available subcommands: {', '.join(group.members)}", context)

    return called


def spelled_out(command: click.Command, args: list[str]) -> list[str]:
    """What Go's flags allow and click's don't, for this command's own options: `--flag=true` and `--flag=false` become
    `--flag` and `--no-flag`, and `-f=VALUE` becomes `-fVALUE`. A group's arguments after the name of a command are left
    to that command."""
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    flags = {name: option.secondary_opts[0] for option in options if option.secondary_opts for name in option.opts}
    valued = {name: option for option in options if not option.is_flag for name in option.opts}
    spelled: list[str] = []
    remaining = iter(enumerate(args))
    for position, argument in remaining:
        if argument == "--" or (isinstance(command, click.Group) and not argument.startswith("-")):
            return spelled + args[position:]
        name, equals, value = argument.partition("=")
        if equals and name in flags:
            if value not in _TRUE | _FALSE:
                raise click.UsageError(f'invalid argument "{value}" for "{name}" flag: expected true or false')
            spelled.append(name if value in _TRUE else flags[name])
        elif equals and name in valued and len(name) == 2:
            spelled.append(f"{name}{value}")
        else:
            spelled.append(argument)
            if argument in valued:
                # Its value comes next, and whatever it looks like, it is a value.
                spelled.extend(following for _, following in [next(remaining, (0, None))] if following is not None)
    return spelled


_SHARED = {
    "Registries": ("--registry-", "--source-", "--destination-"),
    "Object store": ("--s3-",),
}
_EVERYWHERE = {"tty", "color", "json", "column", "debug", "yes", "quiet"}
_COMMON = frozenset({"json", "debug", "registry-username", "registry-password", "registry-ca-cert-path", "s3-endpoint"})
"""Of the flags that many commands share, those that `--help` shows too."""

_METAVARS = {
    **dict.fromkeys(("-b", "--bundle", "-i", "--image", "--keep-bundle"), "REFERENCE"),
    **dict.fromkeys(("--to-repo", "--all-tags"), "REPOSITORY"),
    **dict.fromkeys(("--tar", "--to-tar"), "ARCHIVE"),
    **dict.fromkeys(("--lock", "--keep-lock", "--lock-output", "--report", "-f", "--mirrors", "--token-file"), "FILE"),
    **dict.fromkeys(("--metrics-file", "--journal"), "PATH"),
    **dict.fromkeys(("--to-tag", "--keep-tag"), "TAG"),
    **dict.fromkeys(("-l", "--labels"), "KEY=VALUE"),
    "--keep": "PATTERN",
    "--keep-version": "RANGE",
    "--keep-digest": "DIGEST",
    "--platform": "OS/ARCH",
    "--file-exclusion": "PATH",
    "--column": "NAME",
    "--work-pool": "NAME",
    "--fleet-work-pool": "NAME",
}
"""What the value of a flag is, in help."""

_THINGS = frozenset({"REFERENCE", "REPOSITORY", "ARCHIVE", "FILE", "FOLDER"})


def names_images(parameter: click.Parameter) -> bool:
    """Says whether the values of a flag or an argument are references or repositories, by what help calls them."""
    words = {*re.findall(r"\w+", (parameter.metavar or parameter.name or "").upper())}
    return not words.isdisjoint({"REFERENCE", "REFERENCES", "REPOSITORY", "REPOSITORIES"})


def _references(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    del ctx
    from flows.cli.start.complete import references  # noqa: PLC0415 - only when a shell asks

    return references(incomplete)


_ALL = "flows.cli.help-all"
"""Key in a context's `meta`: whether rare flags are shown."""
_ALL_HELP = "Show all flags: logins, TLS, time-outs and limits of registries, the object store, output."


def _is_rare(option: click.Parameter) -> bool:
    prefixes = (*chain(*_SHARED.values()), "--state")
    shared = option.name in _EVERYWHERE or option.opts[0].startswith(prefixes)
    return shared and option.opts[0].removeprefix("--") not in _COMMON


def _show_all(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    if value and not context.resilient_parsing:
        context.meta[_ALL] = True
        click.echo(context.get_help())
        context.exit()


def write_options(command: click.Command, context: click.Context, formatter: click.HelpFormatter) -> None:
    for name, records in sections_of(command, context, everything=_ALL in context.meta).items():
        if records:
            with formatter.section(name):
                formatter.write_dl(records)


def sections_of(
    command: click.Command, context: click.Context, *, everything: bool
) -> dict[str, list[tuple[str, str]]]:
    """The flags with what each does, by section; without `everything` the rare ones are left out."""
    sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Options", *_SHARED, "Every command")}
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if isinstance(option, click.Option) and record is not None:
            if isinstance(command, Verb) and option in command.rare and not everything:
                continue
            names, text = record
            if option.default is not True:  # of a flag that is off unless it is given, only what switches it on
                names = names.partition(" / ")[0]
            if isinstance(command, Verb) and not everything:
                text = _first_sentence(text)
            section = next((name for name, starts in _SHARED.items() if option.opts[0].startswith(starts)), "Options")
            sections["Every command" if option.name in _EVERYWHERE else section].append((names, text))
    return sections


def _first_sentence(text: str) -> str:
    """Leaves out the sentences after the first, and keeps what is in brackets at the end: (repeatable), a default."""
    first, dot, further = text.partition(". ")
    if not dot:
        return text
    marks = [mark for pattern in (r"\(repeatable\)", r"\[[^]]*\]$") for mark in re.findall(pattern, further)]
    return " ".join((f"{first}.", *marks))
