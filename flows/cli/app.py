"""The tree of commands, and the frame every command runs in: errors, exit codes, interruption."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import click

from flows.cli.failure import DONE, FAILED, USAGE, as_object, exit_code, laid_out
from flows.cli.output import Output
from flows.cli.verb import Invocation, Tree, everywhere
from oci.cancel import CancelToken
from oci.errors import Cancelled, TransshipError

INTERRUPTED = 130
TERMINATED = 143

_MEMBERS = {
    "copy": ("flows.cli.copy:copy", "Copy a bundle, an image or what a lock lists, with all it references"),
    "completion": ("flows.cli.completion:completion", "Print a completion script for a shell"),
    "version": ("flows.cli.version:version", "Print the version"),
}


@click.command(
    cls=Tree,
    members=_MEMBERS,
    aliases={},
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("-v", "--version", "show_version", is_flag=True, help="Print the version.")
@everywhere
@click.pass_context
def root(context: click.Context, show_version: bool) -> None:
    """Relocates OCI images and imgpkg bundles between registries and image-layout folders."""
    if context.invoked_subcommand is not None:
        return
    if show_version:
        context.invoke(root.get_command(context, "version") or root)
        return
    click.echo(context.get_help())
    context.exit(FAILED)


def run(argv: Sequence[str] | None = None) -> int:
    """Never raises and never exits by itself. Under the name imgpkg, wrong usage ends with 1, as there."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    program = program_name()
    output = Output()
    cancel = CancelToken()
    signals = _cancel_on_signals(cancel)
    try:
        code = root.main(arguments, prog_name=program, standalone_mode=False, obj=Invocation(output, cancel))
        return code if isinstance(code, int) else DONE
    except click.UsageError as error:
        message = error.format_message()
        print(f"{program}: Error: {message}", file=sys.stderr)
        if error.ctx is not None:
            print(f"Hint: {error.ctx.command_path} --help", file=sys.stderr)
        output.finish({"Message": message, "Hint": "", "Kind": "Usage", "Retryable": False})
        return FAILED if program == "imgpkg" else USAGE
    except Cancelled:
        print(f"{program}: Error: interrupted; what is copied stays, run the same again to go on", file=sys.stderr)
        output.finish({"Message": "interrupted", "Hint": "", "Kind": "Cancelled", "Retryable": True})
        return TERMINATED if signals[-1:] == [signal.SIGTERM] else INTERRUPTED
    except TransshipError as error:
        print(laid_out(program, error), file=sys.stderr)
        output.finish(as_object(error))
        return exit_code(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def program_name() -> str:
    """`imgpkg` when called so, through a link; else `transship`."""
    return "imgpkg" if os.path.basename(sys.argv[0]) == "imgpkg" else "transship"


def _cancel_on_signals(cancel: CancelToken) -> list[int]:
    """Ctrl-C and SIGTERM set the token; a second one ends the process at once."""
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if seen:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        seen.append(number)
        # In a thread of its own: the interrupted one may hold the very lock that the token needs.
        threading.Thread(target=cancel.cancel, daemon=True).start()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
    except ValueError:  # not the main thread: whoever embeds us has its own way of stopping
        return seen
    return seen
