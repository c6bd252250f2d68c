"""`transship init`: a folder to begin with, from the files that come with the package."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

import click

from flows.cli.click_ext import Invocation, verb
from oci.errors import InvalidInput
from oci.output import os_errors, write_output
from oci.reference import absolute, parse_any, parse_store
from oci.units import counted

_STARTER = "starter"
_MIRRORS = "mirrors.yaml"
_SOURCE = "registry.example/shop/web"
_DESTINATION = "registry.corp.example/mirror/web"
_HEADER = ("File", "What")
_PURPOSES = {
    "README.md": "what each file is for, and what to run",
    _MIRRORS: "what is mirrored where, and when; the rest of the format in comments",
    "prefect.yaml": "deployments of the flows, for prefect deploy",
    "server.env": "settings of a Prefect server",
    "worker.env": "settings of workers and other clients",
    "examples/README.md": "what each example shows",
}


@verb(
    "init",
    "",
    "mirrors --source registry.example/shop/web --destination registry.corp.example/mirror/web",
    "/etc/transship --json",
)
@click.argument("folder", default=".")
@click.option("--source", default=_SOURCE, metavar="REPOSITORY", help="What the first mirror reads.")
@click.option("--destination", default=_DESTINATION, metavar="REPOSITORY", help="Where it goes.")
def init(invocation: Invocation, /, folder: str, source: str, destination: str) -> None:
    """Write a commented mirrors.yaml, prefect.yaml, settings of a Prefect server and its workers, and examples into
    FOLDER, which is made when it isn't there. No file is overwritten: where one of them exists, nothing is written."""
    output = invocation.output
    output.check_columns(_HEADER)
    sides = {_SOURCE: str(parse_any(source).repository), _DESTINATION: str(parse_store(destination))}
    files = {path: file.read_bytes() for path, file in _files(resources.files("flows") / _STARTER)}
    for name, replacement in sides.items():
        files[_MIRRORS] = files[_MIRRORS].replace(name.encode(), replacement.encode())
    present = [path for path in files if os.path.lexists(os.path.join(folder, path))]
    if present:
        raise InvalidInput(
            f"{folder} has {', '.join(present)} already, and nothing is overwritten",
            hint="name another folder: transship init FOLDER",
        )
    for path, data in files.items():
        target = os.path.join(folder, path)
        with os_errors(store=folder, subject=path, operation="writing the file", named=True):
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            write_output(target, data)
    output.table("Files", _HEADER, [[path, _PURPOSES.get(path, "an example")] for path in files])
    output.result(folder=absolute(folder), files=list(files))
    change_folder = "" if folder == "." else f"cd {shlex.quote(folder)} && "
    output.summary(f"wrote {counted(len(files), 'file')}; next: {change_folder}transship mirror validate")


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, Traversable]]:
    """Every file with its path, those of the folder itself first."""
    entries = sorted(folder.iterdir(), key=lambda entry: (entry.is_dir(), entry.name))
    for entry in entries:
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _files(entry, f"{below}{entry.name}/")
        elif entry.is_file():
            yield f"{below}{entry.name}", entry
