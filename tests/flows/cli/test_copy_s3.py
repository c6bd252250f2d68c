"""`transship copy` to and from an object store, as people run it, and killed while it runs."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import BUCKET, SeaweedFS
from tests.support import content
from tests.support.command import PROGRAM, Done, transship
from tests.support.shop import push_shop
from tests.support.slow_link import SlowLink
from tests.support.waiting import until

MIB = 1 << 20
WORKERS = 4


@pytest.fixture
def front(object_store: SeaweedFS) -> Iterator[FaultProxy]:
    """In front of the object store: sees every request."""
    with FaultProxy(object_store.port) as proxy:
        yield proxy


def run(store: SeaweedFS, *arguments: str, **environ: str) -> Done:
    return transship(*arguments, environ=store.environment | environ)


def test_the_store_is_found_in_the_environment(
    object_store: SeaweedFS,
    registry: DockerRegistry,
    other_registry: DockerRegistry,
    s3_location: str,
    repository: str,
    tmp_path: Path,
) -> None:
    shop = push_shop(registry.url, "cli-s3/shop", seed=91)
    file = str(tmp_path / "shop.tar")
    assert run(object_store, "copy", "-b", shop.reference, "--to-tar", file).code == 0

    out = run(object_store, "copy", "-b", shop.reference, "--to-tar", s3_location)
    back = run(object_store, "copy", "--tar", s3_location, "--to-repo", f"{other_registry.host}/{repository}")

    assert (out.code, back.code) == (0, 0), out.err + back.err
    assert object_store.get(s3_location) == Path(file).read_bytes()
    assert "1.4.0" in other_registry.repository_tags(repository)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "check the"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "check the endpoint, and that this machine reaches it"),
    ],
)
def test_what_is_wrong_with_the_store_is_said_in_one_line(
    object_store: SeaweedFS, registry: DockerRegistry, s3_location: str, environ: dict[str, str], said: str
) -> None:
    shop = push_shop(registry.url, "cli-s3/shop", seed=91)

    done = run(object_store, "copy", "-b", shop.reference, "--to-tar", s3_location, **environ)

    assert done.code != 0
    assert said in done.err
    assert s3_location in done.err
    assert "Traceback" not in done.err


def test_a_damaged_object_is_not_to_be_copied_from(
    object_store: SeaweedFS, registry: DockerRegistry, s3_location: str
) -> None:
    shop = push_shop(registry.url, "cli-s3/shop", seed=91)
    assert run(object_store, "copy", "-b", shop.reference, "--to-tar", s3_location).code == 0
    data = bytearray(object_store.get(s3_location))
    at = data.index(shop.web.blobs[0].data)
    data[at + 100] ^= 1
    object_store.put(s3_location, bytes(data))

    done = run(object_store, "archive", "verify", s3_location, "--deep")

    assert done.code == 1
    assert "Hint: make the archive again, without --resume" in done.err


def test_an_endpoint_that_is_no_url_is_said(object_store: SeaweedFS, s3_location: str) -> None:
    done = run(object_store, "archive", "list", s3_location, AWS_ENDPOINT_URL_S3="s3.example")

    assert done.code == 2
    assert "Hint: give a URL such as https://s3.example, not 's3.example'" in done.err


@pytest.mark.slow
def test_a_command_killed_at_any_moment_goes_on_where_it_was(
    object_store: SeaweedFS, front: FaultProxy, registry: DockerRegistry, s3_location: str, tmp_path: Path
) -> None:
    layers = [content.noise(seed, 6 * MIB) for seed in range(9100, 9107)]
    image = content.image(91, layers=layers)
    content.push(registry.url, "cli-s3/killed", image, "v1")
    moments = random.Random(91)
    older_image = content.push(registry.url, "cli-s3/killed", content.image(92))
    assert run(object_store, "copy", "-i", older_image, "--to-tar", s3_location).code == 0
    older = object_store.get(s3_location)
    killed = finished = 0
    with SlowLink(registry.host, bytes_per_second=20 * MIB) as line:
        command = [
            *(str(PROGRAM), "copy", "-i", f"{line.address}/cli-s3/killed:v1", "--to-tar", s3_location, "--resume"),
            *("--concurrency", str(WORKERS), "--part-size", "5MiB"),
        ]
        environ = object_store.environment | {"AWS_ENDPOINT_URL_S3": front.url, "HOME": "/nonexistent"}
        while killed < 10:
            process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                assert process.wait(moments.uniform(0.5, 2.2)) == 0
                finished += 1
                object_store.put(s3_location, older)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
            until("what was on its way to the store arrives", lambda: front.idle, every=0.01)
            assert object_store.get(s3_location) == older
        line.bytes_per_second = 0
        assert subprocess.run(command, env=environ, capture_output=True, check=False).returncode == 0
        file = str(tmp_path / "whole.tar")
        assert run(object_store, "copy", "-i", f"{line.address}/cli-s3/killed:v1", "--to-tar", file).code == 0

    data = Path(file).read_bytes()
    assert object_store.get(s3_location) == data
    parts = len(data) // (5 * MIB) + 1
    sent = front.count("PUT", "partNumber=")
    assert sent <= (finished + 1) * parts + killed * WORKERS
    assert sent < (finished + killed) * parts, "nothing was ever kept"
    assert object_store.keys(s3_location) == [s3_location.removeprefix(f"s3://{BUCKET}/")]
    assert object_store.uploads(s3_location) == []
