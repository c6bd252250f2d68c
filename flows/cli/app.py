"""The tree of commands, and the frame every command runs in: errors, exit codes, interruption."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from flows.cli.click_ext import CommandGroup, Invocation, Tree, hint_of, sentence_of
from flows.cli.output import IMGPKG, ExitCode, as_object, exit_code, laid_out, program_name
from oci.errors import Cancelled, TransshipError

_OF_OUTPUT = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF})
"""Errors of writing to standard output: a pipe without a reader, a full disk, a terminal that is gone. An OSError of a
file has become an error of ours before it reaches this module."""

_UNKNOWN_TO_IMGPKG = (ExitCode.USAGE, ExitCode.PARTLY)

_ARCHIVE = CommandGroup(
    "Archives: files, or objects as s3://BUCKET/KEY.",
    {
        "list": ("flows.cli.archive:list_images", "List the images of an archive"),
        "verify": ("flows.cli.archive:verify", "Prove that an archive is whole"),
        "diff": ("flows.cli.archive:diff", "Say what makes two archives differ"),
        "plan": ("flows.cli.archive:plan", "Say what an archive would hold, without making it"),
    },
)
_MIRROR = CommandGroup(
    "Repositories, bundles and locks that are kept the same somewhere else.",
    {
        "plan": ("flows.cli.mirror.comparison:plan", "Say what a run would copy"),
        "check": ("flows.cli.mirror.comparison:check", "Tell where destinations differ from what the mirrors say"),
        "run": ("flows.cli.mirror.run:run", "Copy what is missing or changed"),
        "watch": ("flows.cli.mirror.watch:watch", "Run mirrors by their schedules, without a server"),
        "deploy": ("flows.cli.mirror.file:deploy", "Put the mirrors on a Prefect server, with their schedules"),
        "validate": ("flows.cli.mirror.file:validate", "Read the file and show what it says, without a network"),
        "schema": ("flows.cli.mirror.file:schema", "Print the format of the file, for editors"),
    },
)
_POLICY = CommandGroup(
    "Policies of signatures.",
    {"check": ("flows.cli.inspect:check_policy", "Explain what a policy says of an image")},
)
_RECEIPT = CommandGroup(
    "Receipts: what a copy has left in writing.",
    {"verify": ("flows.cli.inspect:verify_receipt", "Say whether all is still as the receipt says")},
)
_TAG = CommandGroup(
    "Tags of a repository.",
    {
        "list": ("flows.cli.repository:list_tags", "List the tags of a repository"),
        "resolve": ("flows.cli.repository:resolve", "Say which digest a tag stands for"),
        "delete": ("flows.cli.repository:delete", "Take one tag away, and nothing else with it"),
    },
)
_AUTH = CommandGroup(
    "Logins of registries.",
    {"check": ("flows.cli.repository:check_logins", "Try the logins of repositories, or of all that mirrors name")},
)
_MEMBERS = {
    "copy": ("flows.cli.copy:copy", "Copy a bundle, an image or what a lock lists, with all it references"),
    "pull": ("flows.cli.files:pull_files", "Pull the files of a bundle or an image into a folder"),
    "push": ("flows.cli.files:push_files", "Push files as a bundle or as a plain image"),
    "archive": (_ARCHIVE, "List, verify and compare archives, or plan one"),
    "describe": ("flows.cli.inspect:describe_bundle", "Show what a bundle holds"),
    "inspect": ("flows.cli.inspect:inspect_image", "Show what an image is, and what is attached to it"),
    "verify": ("flows.cli.inspect:verify_references", "Prove that images, bundles or repositories are complete"),
    "mirror": (_MIRROR, "Keep repositories, bundles and locks the same somewhere else"),
    "policy": (_POLICY, "Say whether a policy of signatures lets an image in, and why"),
    "receipt": (_RECEIPT, "Prove a receipt against its key and against what is there now"),
    "prune": ("flows.cli.prune:prune", "Find, and delete when approved, what a repository has beyond a policy"),
    "tag": (_TAG, "List tags, resolve one to its digest, or delete one"),
    "auth": (_AUTH, "Try the logins of registries"),
    "init": ("flows.cli.start.init:init", "Write a folder to begin with: mirrors.yaml, settings, examples"),
    "receiver": ("flows.cli.mirror.receiver:receiver", "Start mirrors when registries tell of a push"),
    "completion": ("flows.cli.start.about:completion", "Print a completion script for a shell"),
    "help": ("flows.cli.start.about:show_help", "Explain a command"),
    "version": ("flows.cli.start.about:version", "Print the version"),
}


@click.command(
    cls=Tree,
    members=_MEMBERS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("-v", "--version", "show_version", is_flag=True, help="Print the version.")
@click.pass_context
def root(context: click.Context, show_version: bool) -> None:
    """Relocates OCI images and imgpkg bundles between registries, image-layout folders and archives."""
    if context.invoked_subcommand is not None:
        return
    if show_version:
        context.invoke(root.get_command(context, "version") or root)
        context.ensure_object(Invocation).output.finish()
        return
    context.ensure_object(Invocation).output.block(f"{context.get_help()}\n")
    raise click.UsageError("Invalid command - see available commands/subcommands above")


def run(argv: Sequence[str] | None = None) -> int:
    """Never raises and never exits by itself. Under the name imgpkg every error ends with 1, as there."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # A standard stream that was closed before the start is the null device. Otherwise the next file that is opened gets
    # the number of that stream, and output meant for the terminal goes into the file.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no Unicode
    invocation = Invocation()
    with _cancel_on_signals(invocation) as signals:
        try:
            code = _run(arguments, invocation, signals)
        except OSError as error:  # of standard output: what is still in its buffer goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):
                reason = (error.strerror or str(error)).lower()
                invocation.output.error(f"{program_name()}: Error: standard output can't be written to: {reason}")
            code = ExitCode.FAILED
    return ExitCode.FAILED if code in _UNKNOWN_TO_IMGPKG and program_name() == IMGPKG else code


def _run(arguments: list[str], invocation: Invocation, signals: list[int]) -> int:
    program, output = program_name(), invocation.output
    try:
        code = root.main(arguments, prog_name=program, standalone_mode=False, obj=invocation)
        return code if isinstance(code, int) else ExitCode.DONE
    except click.UsageError as error:
        message, hint = sentence_of(error), hint_of(error, program)
        output.error(f"{program}: Error: {message}\nHint: {hint}")
        # Wrong usage is found before the flags are heard.
        output.json = output.json or any(word in ("--json", "--json=true") for word in arguments)
        output.finish({"Message": message, "Hint": hint, "Kind": "Usage", "Retryable": False})
        return ExitCode.USAGE
    except Cancelled:
        output.error(f"{program}: Error: interrupted; {invocation.resume_hint}")
        output.finish(
            {"Message": "interrupted", "Hint": invocation.resume_hint, "Kind": "Cancelled", "Retryable": True}
        )
        return ExitCode.TERMINATED if signals[-1:] == [signal.SIGTERM] else ExitCode.INTERRUPTED
    except TransshipError as error:
        output.error(laid_out(program, error))
        output.finish(as_object(error))
        return exit_code(error)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _OF_OUTPUT:
            raise
        if output.debug:
            traceback.print_exc()
        output.error(f"{program}: Error: {type(error).__name__}: {error}\nHint: --debug shows where")
        output.finish({"Message": str(error), "Hint": "", "Kind": type(error).__name__, "Retryable": False})
        return ExitCode.FAILED


@contextmanager
def _cancel_on_signals(invocation: Invocation) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM set the token; one more ends the process at once. Gives the signals that came. Where a command
    can drain, the token is set when what is on its way at the first signal is done.

    A thread of its own reads them from a pipe (`signal.set_wakeup_fd`): Python's handlers wait for the main thread,
    which may sit in a lock and not be woken when another thread took the signal.
    """
    signals: list[int] = []

    def drained(drain: Callable[[], None]) -> None:
        drain()
        invocation.cancel.cancel()

    def listen() -> None:
        while byte := os.read(reader, 1):
            if signal.getsignal(byte[0]) is not _ignore:
                continue  # SIGHUP, which `mirror watch` has a handler for
            if invocation.cancel.cancelled and signals:
                os._exit(128 + byte[0])
            signals.append(byte[0])
            if byte[0] in invocation.drained_by and len(signals) == 1 and invocation.drain is not None:
                threading.Thread(target=drained, args=(invocation.drain,), name="drain", daemon=True).start()
            else:
                invocation.cancel.cancel()
        os.close(reader)

    if threading.current_thread() is not threading.main_thread():
        yield signals  # the program that embeds the command has its own way of stopping
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=listen, name="signals", daemon=True).start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # first: no signal is ignored unread
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)  # which ends the thread


def _ignore(number: int, frame: FrameType | None) -> None:
    """Is there so that the signal doesn't end the process; the thread that listens does what is to be done."""
    del number, frame
