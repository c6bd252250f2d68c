"""Records the commands of the tutorial on a terminal, and writes what a person sees as docs/pictures/terminal.svg.

.venv/bin/python docs/record.py
"""

from __future__ import annotations

import io
import os
import pty
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

import oci
from oci.relocation.report import ImageTraffic
from tasks.artifacts.picture import bytes_picture

PICTURES = Path(__file__).parent / "pictures"
COLUMNS = 110
PREPARATION = (
    "mkdir -p work/config work/.imgpkg",
    "printf 'replicas: 2\\n' > work/config/app.yml",
    "printf 'apiVersion: imgpkg.carvel.dev/v1alpha1\\nkind: ImagesLock\\n' > work/.imgpkg/images.yml",
)
COMMANDS = (
    "transship push -b oci:shop:1.0 -f work",
    "transship copy -b oci:shop:1.0 --to-repo oci:mirror --verify deep",
    "transship copy -b oci:shop:1.0 --to-tar shop.tar",
    "transship archive verify shop.tar --deep",
    "transship describe -b oci:mirror:1.0",
)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "terminal.svg").write_text(terminal())
    (PICTURES / "report.svg").write_text(report())


def report() -> str:
    """What the report of a copy draws: bytes by outcome, and the images that weigh most. The copy finds one of three
    images at the destination."""
    with tempfile.TemporaryDirectory() as folder:
        for name, size in (("database", 5_000_000), ("web", 3_000_000), ("queue", 1_200_000)):
            files = Path(folder, name)
            files.mkdir()
            (files / "layer").write_bytes(random.Random(name).randbytes(size))
            on_terminal(f"transship push -i oci:{folder}/{name}-image:1 -f {files}", folder)
        oci.copy(f"oci:{folder}/web-image:1", f"oci:{folder}/mirror")
        bars = []
        for name in ("database", "web", "queue"):
            result = oci.copy(f"oci:{folder}/{name}-image:1", f"oci:{folder}/mirror", repair=True)
            assert isinstance(result, oci.RelocationResult)
            (outcome,) = result.outcomes
            bars.append(
                ImageTraffic(
                    image=name, written=outcome.bytes_written, skipped=outcome.bytes_skipped, seconds=outcome.seconds
                )
            )
    total = ImageTraffic(
        image="all", written=sum(bar.written for bar in bars), skipped=sum(bar.skipped for bar in bars)
    )
    return bytes_picture(total, bars)


def terminal() -> str:
    screen = Text()
    with tempfile.TemporaryDirectory() as folder:
        for command in PREPARATION:
            on_terminal(command, folder)
        for command in COMMANDS:
            screen.append(f"$ {command}\n", style="bold")
            screen.append_text(Text.from_ansi(on_terminal(command, folder).replace(f"{folder}/", "/srv/")))
            screen.append("\n")
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(screen)
    svg = console.export_svg(title="transship", theme=DIMMED_MONOKAI)
    # The font of the template would be loaded from a server; a reader's own monospace font serves as well.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def on_terminal(command: str, folder: str) -> str:
    """What a command prints on a pseudo terminal. Lines that it drew over are left out."""
    leader, follower = pty.openpty()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        ["/bin/bash", "-c", command], cwd=folder, env=environment, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    seen = bytearray()
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    if process.wait():
        sys.exit(f"{command}: exit {process.returncode}\n{seen.decode(errors='replace')}")
    text = seen.decode(errors="replace").replace("\r\n", "\n")
    text = re.sub(r"\x1b\[\d*[A-HJKSTfn]|\x1b\[\?\d+[hl]", "", text)
    lines = (line.rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(line for line in lines if line.strip() and "\u2501" not in line)  # a bar is drawn over


if __name__ == "__main__":
    main()
