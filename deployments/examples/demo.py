"""`make demo`: a bundle with two images, relocated as a monitored flow, on this machine alone.

Image-layout folders below `.demo/` stand in for both registries, and a Prefect server lives as long as the demo. The
second relocation of the same bundle finds that there is nothing to do.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = str(Path(sys.executable).with_name("transship"))
FOLDER = Path(".demo").absolute()

# Prefect reads these, and wants its home to exist, when it is imported.
shutil.rmtree(FOLDER, ignore_errors=True)
FOLDER.mkdir()
os.environ.update(
    PREFECT_HOME=str(FOLDER / "prefect"),
    PREFECT_LOGGING_LEVEL="WARNING",
    PREFECT_SERVER_LOGGING_LEVEL="CRITICAL",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
)

from rich.console import Console  # noqa: E402 - after the environment that Prefect reads
from rich.table import Table  # noqa: E402

from flows import RelocateParameters, RelocationReport, SourceKind, Verify, relocate_sync  # noqa: E402
from oci.bundle.image import BUNDLE_LABEL, single_layer_image  # noqa: E402
from oci.bundle.lockfile import ImagesLock, LockedImage  # noqa: E402
from oci.descriptor import DOCKER_LAYER, Descriptor  # noqa: E402
from oci.digest import Digest, digest_of  # noqa: E402
from oci.errors import CancelToken  # noqa: E402
from oci.files import tar  # noqa: E402
from oci.files.deflate import compress  # noqa: E402
from oci.layout.store import LayoutStore  # noqa: E402
from oci.meter import Meter  # noqa: E402
from oci.reference import LayoutFolder, Reference  # noqa: E402
from oci.store import reader_of  # noqa: E402


def main() -> None:
    make_bundle(FOLDER / "origin")
    parameters = RelocateParameters(
        kind=SourceKind.BUNDLE,
        source=f"oci:{FOLDER}/origin:1.4.0",
        destination=f"oci:{FOLDER}/mirror",
        verify=Verify.DEEP,
    )
    say("Relocating the bundle as a Prefect flow (the first one starts a server, some 15 seconds) ...")
    with patience("the server still starts"):
        first = relocate_sync(parameters)
    say("... and once more, now that nothing has changed.")
    second = relocate_sync(parameters)
    show(first, second)
    if not (first.succeeded and second.succeeded and second.images_copied == 0):
        sys.exit("the demo didn't end as it should")


@contextmanager
def patience(text: str) -> Iterator[None]:
    """Says every ten seconds that nothing is wrong. A server that never comes is told without a traceback."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(10):
            say(f"... {text}")

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    except RuntimeError as error:
        if "ephemeral" not in str(error):
            raise
        sys.exit(f"{error}\nGive it more time: PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=600")
    finally:
        done.set()


def make_bundle(folder: Path) -> None:
    """A layout folder with `shop:1.4.0`, which lists two images of its own."""
    store = LayoutStore(LayoutFolder(str(folder)), side="destination", meter=Meter(), cancel=CancelToken())
    images = []
    for name, size in (("web", 3_000_000), ("database", 5_000_000)):
        digest = push(store, {name: random.Random(name).randbytes(size)}, {}, "")
        images.append(LockedImage(Reference.parse(f"registry.example/shop/{name}").at(digest)))
    files = {".imgpkg/images.yml": ImagesLock(tuple(images)).to_yaml().encode()}
    for path in sorted((HERE / "shop").rglob("*.yml")):
        files[str(path.relative_to(HERE / "shop"))] = path.read_bytes()
    push(store, files, {BUNDLE_LABEL: "true"}, "1.4.0")


def push(store: LayoutStore, files: dict[str, bytes], labels: dict[str, str], tag: str) -> Digest:
    """A one-layer image of `files`, made as a bundle's is."""
    archive = b"".join(
        part
        for name, data in sorted(files.items())
        for part in (tar.header(name, mode=0o600, size=len(data)), data, tar.padding(len(data)))
    )
    layer = b"".join(compress([archive, tar.END]))
    manifest, config, descriptor = single_layer_image(
        digest_of(layer), len(layer), digest_of(archive + tar.END), labels
    )
    store.put_blob(Descriptor(DOCKER_LAYER, digest_of(layer), len(layer)), reader_of(layer))
    store.put_blob(descriptor, reader_of(config))
    store.put_manifest(manifest, tag)
    return manifest.digest


def show(*reports: RelocationReport) -> None:
    table = Table("", *(f"run {number}" for number in range(1, len(reports) + 1)), title="What it did")
    rows = {
        "images copied": [str(one.images_copied) for one in reports],
        "images there already": [str(one.images_present) for one in reports],
        "sent": [f"{one.bytes.written / 1e6:.1f} MB" for one in reports],
        "read again to verify": [f"{one.bytes_hashed / 1e6:.1f} MB" for one in reports],
        "tags moved": [", ".join(one.tags) or "none" for one in reports],
        "seconds": [f"{one.seconds:.1f}" for one in reports],
        "result": ["complete" if one.succeeded else "failed" for one in reports],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    Console().print(table)
    say("The bundle is now at oci:.demo/mirror as well. What another copy would do:\n")
    program = "transship" if shutil.which("transship") == PROGRAM else os.path.relpath(PROGRAM)
    say(f"  {shlex.quote(program)} copy -b oci:.demo/mirror:1.4.0 --to-repo oci:.demo/another --plan\n")


def say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text)


if __name__ == "__main__":
    started = time.monotonic()
    main()
    say(f"({time.monotonic() - started:.0f} s)")
