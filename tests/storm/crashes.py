# ruff: noqa: E501 - a command is a line
"""Commands that are met by something in the middle: a signal, a limit of the machine, a folder that goes, a registry or
an object store that starts again, a network that is lost, a clock that jumps."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import BUCKET, SeaweedFS
from tests.storm import operations
from tests.storm.stage import Stage
from tests.support.command import PROGRAM, transship
from tests.support.waiting import until

SECONDS_TO_END = 5.0
"""After Ctrl-C or SIGTERM."""

LOST = 60.0
"""Seconds without a network."""


class Scene(NamedTuple):
    """A stage, the registries that it is on, and an object store with a proxy before it. `name` is of one crash."""

    stage: Stage
    registries: Mapping[str, DockerRegistry]
    store: SeaweedFS
    store_proxy: FaultProxy
    name: str = ""

    @property
    def archive(self) -> str:
        return str(operations._archive(self.stage, self.name))

    @property
    def whole(self) -> str:
        return str(operations._archive(self.stage, "whole"))

    def at(self, side: str, repository: str = "") -> str:
        return self.stage.at(side, repository or self.name)

    @property
    def bundle(self) -> str:
        return self.stage.bundle_at("source")

    def object(self, name: str = "") -> str:
        return f"s3://{BUCKET}/crash{self.stage.proxies['source'].port}-{name or self.name}/shop.tar"

    def proxy(self, side: str) -> FaultProxy:
        return self.store_proxy if side == "S3" else self.stage.proxies[side]

    def calm(self) -> None:
        self.stage.calm()
        self.store_proxy.rules.clear()
        self.store_proxy.seen.clear()

    @property
    def home(self) -> Path:
        """Of this crash alone, with the state of its runs."""
        return self.stage.folder / f"home-{self.name}"


@dataclass(frozen=True, slots=True)
class Command:
    """`side`, `method` and `path` say which requests are the middle of it. `ruins` lists what is half-made, `left` what
    a later run should have tidied up. `output` is the folder that it writes to; without one it is that of its state."""

    arguments: Callable[[Scene], Sequence[str]]
    side: str
    method: str
    path: str
    ruins: Callable[[Scene], list[str]]
    prepare: Callable[[Scene], None] = lambda _scene: None
    output: Callable[[Scene], Path] | None = None
    left: Callable[[Scene], list[str]] = lambda _scene: []
    sends: bool = True
    """Does it send blobs to the destination?"""


def _half_made(scene: Scene) -> list[str]:
    return operations._half_made(scene.stage, scene.name)


def _mirrors(scene: Scene) -> str:
    path = scene.stage.folder / f"{scene.name}.yaml"
    path.write_text(
        f"version: 1\nmirrors:\n- name: web\n  source: {{repository: {scene.at('source', 'shop/web')}}}\n"
        f"  destinations: [{{repository: {scene.at('destination')}}}]\n"
    )
    return str(path)


def _half_pulled(scene: Scene) -> list[str]:
    folder = _out(scene) / scene.name
    return [str(path) for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def _out(scene: Scene) -> Path:
    """A folder for the output alone, which may vanish."""
    folder = scene.stage.folder / f"out-{scene.name}"
    folder.mkdir(exist_ok=True)
    return folder


def _tarball(scene: Scene) -> str:
    return str(_out(scene) / "shop.tar")


def _beside(kept: str) -> Callable[[Scene], list[str]]:
    return lambda scene: [path.name for path in _out(scene).iterdir() if path.name != kept.format(name=scene.name)]


def _make_archive(scene: Scene) -> None:
    operations._make_archive(scene.stage, "whole")


def _make_object(scene: Scene) -> None:
    _make_archive(scene)
    if scene.store.head(scene.object("whole")) is None:
        scene.store.put(scene.object("whole"), Path(scene.whole).read_bytes())


def _made(path: Callable[[Scene], str]) -> Callable[[Scene], list[str]]:
    return lambda scene: [path(scene)] if os.path.exists(path(scene)) else []


UPLOADS = ("PUT", r"/blobs/uploads/")
READS = ("GET", r"/blobs/sha256")
COMMANDS: Mapping[str, Command] = {
    "copy": Command(lambda scene: ["copy", "-b", scene.bundle, "--to-repo", scene.at("destination")], "destination", *UPLOADS, _half_made),
    "push": Command(
        lambda scene: ["push", "-b", f"{scene.at('destination')}:v1", "-f", operations._files(scene.stage)], "destination", *UPLOADS, _half_made
    ),
    "pull": Command(
        lambda scene: ["pull", "-b", scene.bundle, "-o", str(_out(scene) / scene.name)],
        "source", *READS, _half_pulled, output=_out, left=_beside("{name}"), sends=False,
    ),
    "export": Command(
        lambda scene: ["copy", "-b", scene.bundle, "--to-tar", _tarball(scene), "--resume"],
        "source", *READS, _made(_tarball), output=_out, left=_beside("shop.tar"), sends=False,
    ),
    "export to S3": Command(
        lambda scene: ["copy", "-b", scene.bundle, "--to-tar", scene.object(), "--resume", "--s3-endpoint", scene.store_proxy.url],
        "S3", "PUT", r".", lambda scene: [scene.object()] if scene.store.head(scene.object()) else [], sends=False,
    ),
    "import": Command(lambda scene: ["copy", "--tar", scene.whole, "--to-repo", scene.at("destination")], "destination", *UPLOADS, _half_made, _make_archive),
    "import from S3": Command(
        lambda scene: ["copy", "--tar", scene.object("whole"), "--to-repo", scene.at("destination"), "--s3-endpoint", scene.store_proxy.url],
        "S3", "GET", r".", _half_made, _make_object,
    ),
    "mirror": Command(lambda scene: ["mirror", "run", "-f", _mirrors(scene), "--drain", "1s"], "destination", *UPLOADS, _half_made),
    "prune": Command(
        lambda scene: ["prune", scene.at("destination"), "--keep-tag", "v1", "--keep-tag", "v2", "--approve"],
        "destination", "DELETE", r"/manifests/", lambda scene: operations._kept(scene.stage, scene.name),
        lambda scene: operations._make_unwanted(scene.stage, scene.name), sends=False,
    ),
}  # fmt: skip


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))


def small_files(size: int = 60_000) -> None:
    """As on a disk that is full: nothing grows beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def no_files() -> None:
    small_files(0)


def bound_by_modes() -> None:
    """Has the modes of files hold for root, too: what it starts lacks CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    library = ctypes.CDLL(None)
    for capability in (1, 2):
        library.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@dataclass(frozen=True, slots=True)
class Event:
    """`rule` says what becomes of requests in the middle, `strike` what happens when the first of them is there;
    `limit` is set before the command begins. `completes`: the run goes on to its end. None: it may."""

    rule: Callable[[Command], Fault] | None = None
    strike: Callable[[Scene, Command, subprocess.Popen[bytes]], None] | None = None
    limit: Callable[[], None] | None = None
    code: int | None = None
    completes: bool | None = False
    environ: Callable[[Scene], dict[str, str]] = lambda _scene: {}


def _held(command: Command, seconds: float = 600.0) -> Fault:
    return Fault(method=command.method, path=command.path, delay=seconds)


def _for_a_moment(command: Command) -> Fault:
    return Fault(method=command.method, path=command.path, last=1, delay=3.0)


def _gone(command: Command) -> Fault:
    """The port is closed for a while, as seen by its clients: SeaweedFS itself takes minutes to begin again."""
    return Fault(method=command.method, path=command.path, last=1, refuse=2.0)


def _slow(command: Command) -> Fault:
    return Fault(method=command.method, path=command.path, delay=0.5)


def _signal(number: int) -> Callable[[Scene, Command, subprocess.Popen[bytes]], None]:
    return lambda _scene, _command, process: process.send_signal(number)


def _restart(scene: Scene, command: Command, process: subprocess.Popen[bytes]) -> None:
    del process
    server = scene.registries["source" if command.side == "source" else "destination"]
    server.stop(kill=True)
    server.start()


def _lose_network(scene: Scene, command: Command, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LOST
    until("the network again", lambda: time.monotonic() > end or process.poll() is not None, LOST + 30, every=0.5)
    scene.proxy(command.side).rules.clear()


def _folder(scene: Scene, command: Command) -> Path:
    return command.output(scene) if command.output else scene.home / "cache"


def _vanish(scene: Scene, command: Command, process: subprocess.Popen[bytes]) -> None:
    del process
    shutil.rmtree(_folder(scene, command), ignore_errors=True)


def _no_writing(scene: Scene, command: Command, process: subprocess.Popen[bytes]) -> None:
    del process
    folder = _folder(scene, command)
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            path.chmod(0o555)


JUMP = """
import time
_time, _begin = time.time, time.monotonic()
time.time = lambda: _time() + (400 * 86400 if int((time.monotonic() - _begin) * 5) % 2 else -400 * 86400)
"""


def _jumping(scene: Scene) -> dict[str, str]:
    """The wall clock goes 400 days to and fro, five times a second."""
    folder = scene.stage.folder / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(JUMP)
    return {"PYTHONPATH": str(folder)}


EVENTS: Mapping[str, Event] = {
    "SIGKILL": Event(_held, _signal(signal.SIGKILL)),
    "SIGTERM": Event(_held, _signal(signal.SIGTERM), code=143),
    "Ctrl-C": Event(_held, _signal(signal.SIGINT), code=130),
    "descriptors": Event(limit=few_descriptors, completes=None),
    "disk full": Event(limit=small_files, completes=None),
    "no room for state": Event(limit=no_files, completes=None),
    "registry restarted": Event(_for_a_moment, _restart, completes=True),
    "S3 restarted": Event(_gone, completes=None),
    "network lost": Event(_held, _lose_network, completes=True),
    "read-only folder": Event(_slow, _no_writing, limit=bound_by_modes, completes=None),
    "vanishing folder": Event(_slow, _vanish, completes=None),
    "clock jump": Event(_slow, environ=_jumping, completes=True),
}

NO_STORE = "no object store takes part"
NO_REGISTRY = "its middle is a request to the object store; `S3 restarted` is its cell"
SENSELESS: Mapping[tuple[str, str], str] = {
    **{("S3 restarted", name): NO_STORE for name, command in COMMANDS.items() if command.side != "S3"},
    **{("registry restarted", name): NO_REGISTRY for name, command in COMMANDS.items() if command.side == "S3"},
}
"""Cells of the table that nobody can meet, each with its reason."""


@contextmanager
def scene_of(registries: Mapping[str, DockerRegistry], store: SeaweedFS, folder: Path) -> Iterator[Scene]:
    ports = {side: server.port for side, server in registries.items()}
    with Stage(ports, folder) as stage, FaultProxy(store.port) as proxy:
        yield Scene(stage, registries, store, proxy)


def start(scene: Scene, command: Command, event: Event) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IMGPKG_", "TRANSSHIP_"))}
    return subprocess.Popen(
        [str(PROGRAM), *command.arguments(scene)],
        env={**kept, **_environment(scene), **event.environ(scene)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=event.limit,  # noqa: PLW1509 - nothing else forks meanwhile
    )


def _environment(scene: Scene) -> dict[str, str]:
    store = {name: value for name, value in scene.store.environment.items() if name != "AWS_ENDPOINT_URL_S3"}
    return {**store, "HOME": str(scene.home), "XDG_CACHE_HOME": str(scene.home / "cache")}


def crash(scene: Scene, event: Event, command: Command) -> list[str]:
    """Lets something happen in the middle of a run, and gives what is wrong after it and after the next."""
    (scene.home / "cache").mkdir(parents=True)
    command.prepare(scene)
    scene.calm()
    proxy = scene.proxy(command.side)
    proxy.rules[:] = [event.rule(command)] if event.rule else []
    process = start(scene, command, event)
    if event.strike:
        until("the middle", lambda: _reached(scene, command) or process.poll() is not None, every=0.02)
        event.strike(scene, command, process)
    struck = time.monotonic()
    _, said = process.communicate(timeout=240)
    wrong = [*_ended(event, process.returncode, time.monotonic() - struck), *_children(process.pid)]
    if b"Traceback" in said:
        wrong.append(said.decode()[-500:])
    if process.returncode:
        wrong += [f"half-made: {ruin}" for ruin in command.ruins(scene)]
    if wrong:
        wrong.append(said.decode()[-500:])
    return [*wrong, *_again(scene, command)]


def _ended(event: Event, code: int, seconds: float) -> Iterator[str]:
    if event.code is not None:
        if code != event.code:
            yield f"code {code} instead of {event.code}"
        if seconds > SECONDS_TO_END:
            yield f"took {seconds:.1f} s to end"
    elif event.completes is not None and event.completes != (code == 0):
        yield f"code {code}"


def _again(scene: Scene, command: Command) -> Iterator[str]:
    """What is wrong with the next run: it completes, sends nothing that arrived, and tidies up. A blob that is on its
    way when the first run is killed arrives all the same: the proxy passes on what the kernel has, and docker-registry
    commits a whole body also when its client is gone. So that is waited for."""
    for proxy in (*scene.stage.proxies.values(), scene.store_proxy):
        proxy.settle()
    scene.calm()
    there = scene.stage.arrived(scene.name)
    for path in (scene.stage.folder / f"out-{scene.name}", *scene.home.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    done = transship(*command.arguments(scene), environ=_environment(scene))
    if done.code:
        yield f"the next run failed: {done.err[-500:]}"
        return
    if command.sends:
        yield from (f"sent again: {digest}" for digest in sorted(scene.stage.sent() & there))
    yield from (f"left: {orphan}" for orphan in command.left(scene))
    yield from (f"left: {path}" for path in scene.home.rglob("uploads/*"))


def _children(process: int) -> Iterator[str]:
    """Whatever it has started ends with it."""
    try:
        os.killpg(process, 0)
    except ProcessLookupError:
        return
    yield "a process is left"


def _reached(scene: Scene, command: Command) -> bool:
    return scene.proxy(command.side).count(command.method, command.path) > 0
