"""Ceph's object gateway from Debian (16.2): an S3 that is older and knows less, as many a company runs one.

One monitor, one storage daemon in memory, one gateway, all on loopback, all of their state in one folder. For tests
marked `optional`: 270 MB of packages (ceph-mon ceph-osd radosgw ceph-common) that nothing else needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.certificates import Certificates
from tests.servers.ports import free_port
from tests.servers.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, ObjectStore
from tests.support.parent import ending_with_parent

START_SECONDS = 120.0
PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool")

_CONFIGURATION = """
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 2
paxos propose interval = 0.02
paxos min wait = 0.01
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$cluster-$name.asok
log file = {folder}/$name.log
crash dir = {folder}
[mon]
mon data = {folder}/mon
[osd]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8G
osd class load list = *
osd class default list = *
[client.rgw.a]
rgw frontends = beast {listen}
rgw crypt require ssl = false
rgw relaxed s3 bucket names = true
rgw enable apis = s3, admin
"""


class CephGateway(ObjectStore):
    """Started when entered, killed when left."""

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        if certificates is None:
            super().__init__(free_port())
            self._listen = f"endpoint=127.0.0.1:{self.port}"
        else:
            super().__init__(free_port(), scheme="https", ca_file=str(certificates.ca))
            self._listen = (
                f"ssl_endpoint=127.0.0.1:{self.port} ssl_certificate={certificates.certificate} "
                f"ssl_private_key={certificates.key}"
            )
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._conf = str(folder / "ceph.conf")
        self._fsid = str(uuid.uuid4())

    def start(self) -> None:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise RuntimeError(f"not installed: {', '.join(missing)}; apt-get install ceph-mon ceph-osd radosgw")
        ports = {"mon1": free_port(), "mon2": free_port()}
        text = _CONFIGURATION.format(fsid=self._fsid, folder=self.folder, listen=self._listen, **ports)
        Path(self._conf).write_text(text)
        for name in ("mon", "osd"):
            (self.folder / name).mkdir()
        self._make_keys()
        self._start_monitor(f"[v2:127.0.0.1:{ports['mon2']},v1:127.0.0.1:{ports['mon1']}]")
        self._start_storage()
        self._daemon("radosgw", "-n", "client.rgw.a", "-f")
        keys = ("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
        self._run("radosgw-admin", "user", "create", "--uid", "tests", "--display-name", "tests", *keys)
        self._make_bucket()

    def _make_keys(self) -> None:
        keyring = str(self.folder / "keyring")
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        for number, name in enumerate(("mon.", "client.admin", "osd.0", "client.rgw.a")):
            create = ("--create-keyring",) if number == 0 else ()
            _checked("ceph-authtool", keyring, *create, "--gen-key", "-n", name, *everything)

    def _start_monitor(self, address: str) -> None:
        map_file, keyring = str(self.folder / "monmap"), str(self.folder / "keyring")
        _checked("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", address, map_file)
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", map_file, "--keyring", keyring)
        self._daemon("ceph-mon", "-i", "a", "-f")

    def _start_storage(self) -> None:
        name = str(uuid.uuid4())
        number = self._run("ceph", "--connect-timeout", "20", "osd", "new", name).strip()
        self._run("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", name)
        self._daemon("ceph-osd", "-i", number, "-f")

    def _make_bucket(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client.create_bucket(Bucket=BUCKET)
            except (ClientError, BotoCoreError):
                if time.monotonic() > deadline or any(one.poll() is not None for one in self._running):
                    self.stop()
                    raise
                time.sleep(0.1)
            else:
                return

    def _run(self, program: str, *arguments: str) -> str:
        return _checked(program, "-c", self._conf, *arguments)

    def _daemon(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("ab") as log:
            process = subprocess.Popen(
                ending_with_parent([program, "-c", self._conf, *arguments], "KILL"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running.append(process)

    def stop(self) -> None:
        self.client.close()
        for process in reversed(self._running):
            process.kill()
            process.wait()
        self._running.clear()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _checked(program: str, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=START_SECONDS, check=False, env=environment
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program} {arguments[0]}: {done.stderr[-2000:]}")
    return done.stdout
