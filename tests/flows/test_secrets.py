"""After runs that used known secrets, well and badly, everything that Prefect keeps is searched for them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import urllib.parse
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from tasks.blocks import RegistryCredentials, S3Store
from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, SeaweedFS
from tests.servers.token_service import TokenService
from tests.support.command import PROGRAM
from tests.support.content import image, push
from tests.support.flow_runs import is_over, start_run, state_of
from tests.support.prefect_server import PrefectServer, deploy
from tests.support.waiting import until

BLOCK = "from-a-block-77a0c3e1"
WRONG = "from-a-wrong-block-0f5d2b96"
DOCKER = "from-docker-config-4c1be8a7"
ENVIRONMENT = "from-environment-93d0e5f2"
FLAG = "from-a-flag-2c94f0aa"
WRONG_KEY = "from-a-wrong-store-aa6d1e02"
PROXY = "from-a-proxy-6b2e81d4"
GATEWAY = "from-a-pushgateway-e81a33b0"
LOGINS = (
    ("writer", BLOCK),
    ("reader", FLAG),
    ("writer", WRONG),
    ("docker", DOCKER),
    ("environment", ENVIRONMENT),
    (ACCESS_KEY, SECRET_KEY),
    (ACCESS_KEY, WRONG_KEY),
    ("bob", PROXY),
    ("bob", GATEWAY),
)
_HTPASSWD = (  # made once with bcrypt, cost 5
    "docker:$2b$05$abcdefghijklmnopqrstuuYzotALkCAO/3Bo0ljKw4ZVYZXMb3tvu\n"
    "environment:$2b$05$abcdefghijklmnopqrstuuEwJq9PQY4HAS/KaxQyI0UvKZs0kkU1y\n"
)


@dataclass(frozen=True, slots=True)
class Yard:
    """A registry behind a token service, one behind a password, and what a worker has in its environment."""

    tokens: DockerRegistry
    service: TokenService
    locked: DockerRegistry
    environ: dict[str, str]


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    (tmp_path / "htpasswd").write_text(_HTPASSWD)
    with (
        TokenService(tmp_path / "service", password=BLOCK) as service,
        DockerRegistry(tmp_path / "tokens", token=service.auth) as tokens,
        DockerRegistry(tmp_path / "locked", htpasswd=tmp_path / "htpasswd") as locked,
    ):
        login = base64.b64encode(f"docker:{DOCKER}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {locked.host: {"auth": login}}}))
        environ = {
            "DOCKER_CONFIG": str(tmp_path),
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "TRANSSHIP_PUSHGATEWAY": f"http://bob:{GATEWAY}@127.0.0.1:1",
        }
        yield Yard(tokens, service, locked, environ)


@pytest.fixture
def deployed(prefect: PrefectServer) -> PrefectServer:
    deploy(prefect)
    prefect.cli("block", "register", "--module", "tasks.blocks")
    return prefect


def ended(run: UUID) -> str:
    """Waits for the run's end, and gives the state that it ends in."""
    until(f"the end of {run}", lambda: is_over(run))
    return state_of(run).upper()


def copy(server: PrefectServer, *arguments: str, **environ: str) -> int:
    """`transship copy` with everything logged, into the same folder as all else."""
    done = subprocess.run(
        [str(PROGRAM), "copy", "--debug", *arguments],
        env={**server.environment, "PREFECT_LOGGING_LEVEL": "DEBUG", "HOME": "/nonexistent", **environ},
        cwd=server.home,
        capture_output=True,
        timeout=300,
        check=False,
    )
    (server.home / f"copy-{uuid.uuid4().hex}.log").write_bytes(done.stdout + done.stderr)
    return done.returncode


def spellings(user: str, secret: str) -> set[bytes]:
    """How a login may lie about: as it is, quoted for an address, in a header, in a docker config."""
    pair = f"{user}:{secret}".encode()
    return {
        secret.encode(),
        urllib.parse.quote(secret, safe="").encode(),
        base64.b64encode(pair),
        base64.urlsafe_b64encode(pair),
    }


def holding(server: PrefectServer, needles: set[bytes]) -> set[str]:
    """Names of files with one of the needles in them, logs and results, and "database" if that has one."""
    return {name for name, data in server.traces().items() if any(needle in data for needle in needles)}


async def save(name: str, host: str, password: str) -> None:
    await RegistryCredentials(registry=host, username="writer", password=SecretStr(password)).asave(name)


async def save_store(name: str, endpoint: str, secret_key: str) -> None:
    secret = SecretStr(secret_key)
    await S3Store(endpoint=endpoint, access_key=ACCESS_KEY, secret_key=secret, path_style=True).asave(name)


def mirrors(yard: Yard, repository: str, archive: str, login: str) -> dict[str, object]:
    """Of the image of the yard into a repository and an object, with blocks of one name for both."""
    return {
        "registries": {yard.tokens.host: {"credentials": login}},
        "buckets": {BUCKET: {"s3_store": login}},
        "mirrors": [
            {
                "name": "web",
                "source": {"repository": f"{yard.tokens.host}/team/web"},
                "destinations": [{"repository": f"{repository}/mirrored"}, {"archive": archive}],
            }
        ],
    }


@pytest.mark.slow
def test_no_secret_is_kept_of_runs_that_end_well_or_badly(
    deployed: PrefectServer, yard: Yard, object_store: SeaweedFS, s3_location: str, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex
    pull_and_push = [{"type": "repository", "name": "team/web", "actions": ["pull", "push"]}]
    bearer = f"Bearer {yard.service.sign('writer', pull_and_push)}"
    with httpx.Client(base_url=yard.tokens.url, headers={"Authorization": bearer}) as client:
        push(yard.tokens.url, "team/web", image(91), "v1", client=client)
    source, to = f"{yard.tokens.host}/team/web:v1", f"{yard.locked.host}/mirror/{mark}"
    for name, password, key in (("right", BLOCK, SECRET_KEY), ("wrong", WRONG, WRONG_KEY)):
        asyncio.run(save(f"{name}-{mark}", yard.tokens.host, password))
        asyncio.run(save_store(f"{name}-{mark}", object_store.endpoint, key))

    with deployed.worker("transship", environ=yard.environ):
        runs = [
            start_run("relocate", {"kind": "image", "source": source, "source_credentials": [login], **more})
            for login, more in (
                (f"right-{mark}", {"destination": to}),
                (f"wrong-{mark}", {"destination": to}),
                (f"right-{mark}", {"destination": s3_location, "s3_store": f"right-{mark}"}),
                (f"right-{mark}", {"destination": s3_location, "s3_store": f"wrong-{mark}"}),
            )
        ]
        for login in ("right", "wrong"):
            config = mirrors(yard, to, f"{s3_location}.{login}", f"{login}-{mark}")
            runs.append(start_run("mirror", {"config": config}))
        states = [ended(run) for run in runs]
    codes = [
        copy(
            deployed, "--monitor", "-i", f"{to}:v1", "--to-repo", f"oci:{tmp_path}/one",
            IMGPKG_USERNAME="environment", IMGPKG_PASSWORD=ENVIRONMENT,
        ),
        copy(
            deployed, "--monitor", "-i", source, "--to-repo", f"oci:{tmp_path}/two",
            "--source-username", "reader", "--source-password", FLAG,
        ),
        copy(
            deployed, "-i", source, "--to-repo", f"oci:{tmp_path}/three", "--registry-retry-count", "0",
            "--registry-proxy", f"http://bob:{PROXY}@127.0.0.1:1",
        ),
    ]  # fmt: skip

    assert (states, codes) == (["COMPLETED", "FAILED"] * 3, [0, 1, 1])
    assert yard.service.issued
    needles = {token.encode() for token in yard.service.issued}.union(*(spellings(*login) for login in LOGINS))
    assert {"database", "worker.log"} <= holding(deployed, {mark.encode()})
    assert holding(deployed, needles) == set()


def test_a_block_is_encrypted_and_its_key_lies_in_the_same_database(prefect: PrefectServer) -> None:
    """What the database is worth to a thief, for whoever backs it up."""
    name = f"kept-{uuid.uuid4().hex}"
    asyncio.run(save(name, "corp.example", BLOCK))

    stored = prefect.stored().decode()
    [row] = [line for line in stored.splitlines() if f"\t{name}\t" in line]
    keys = len(re.findall(r"\tENCRYPTION_KEY\t", stored))

    assert "corp.example" not in row
    assert BLOCK not in row
    assert keys == 1
    with httpx.Client(base_url=prefect.api) as client:
        path = f"/block_types/slug/registry-credentials/block_documents/name/{name}"
        shown = client.get(path).json()["data"]["password"]
        given = client.get(path, params={"include_secrets": True}).json()["data"]["password"]
    assert set(shown) == {"*"}
    assert given == BLOCK
