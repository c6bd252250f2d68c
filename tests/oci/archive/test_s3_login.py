"""Who we are at an object store: keys, profiles, roles that are assumed again before their keys expire."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from msgspec.structs import replace

from oci.archive.options import S3Options
from oci.archive.s3 import S3
from oci.errors import Denied, Unauthorized
from oci.export.s3_writer import S3Writer
from oci.meter import Meter
from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.servers.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS
from tests.support.tarballs import MIB, Tarball

ROLE = "arn:aws:iam::123456789012:role/archives"
_ANSWER = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken></SessionToken>
<Expiration>{until}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


class _TokenHandler(QuietHandler):
    def do_POST(self) -> None:
        owner: TokenService = self.server.owner  # type: ignore[attr-defined]
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        owner.roles.append(asked["RoleArn"][0])
        until = (datetime.now(UTC) + owner.lasting).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = _ANSWER.format(key=ACCESS_KEY, secret=SECRET_KEY, until=until)
        self.answer(200, body.encode(), Content_Type="text/xml")


class TokenService(LoopbackServer):
    """Amazon's STS, as far as AssumeRole: whoever asks gets the keys of the store."""

    handler = _TokenHandler

    def __init__(self) -> None:
        super().__init__()
        self.roles: list[str] = []
        self.lasting = timedelta(hours=1)


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenService]:
    with TokenService() as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
        yield service


@pytest.fixture(scope="module")
def tarball() -> Tarball:
    return Tarball.of(1, [MIB])


def assuming(store: SeaweedFS) -> S3Options:
    return store.settings.with_(access_key="somebody", secret_key="else", role=ROLE)


def test_a_role_is_assumed(object_store: SeaweedFS, tokens: TokenService, s3_location: str, tarball: Tarball) -> None:
    meter = Meter()

    tarball.write(S3Writer(s3_location, S3(assuming(object_store), side="destination", meter=meter)))

    assert object_store.get(s3_location) == tarball.data
    assert tokens.roles == [ROLE]
    assert set(meter.receipt().identities.values()) == {f"role {ROLE}"}


def test_keys_of_a_role_that_are_about_to_expire_are_fetched_again(
    object_store: SeaweedFS, tokens: TokenService, s3_location: str, tarball: Tarball
) -> None:
    tokens.lasting = timedelta(minutes=12)  # boto3 renews what has less than fifteen left

    tarball.write(S3Writer(s3_location, S3(assuming(object_store), side="destination")))

    assert object_store.get(s3_location) == tarball.data
    assert len(tokens.roles) > 1


def test_a_profile_is_read_from_the_config_files(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[backup]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n[other]\n"
        "aws_access_key_id = other\naws_secret_access_key = other\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    named = object_store.settings.with_(access_key="", secret_key="")

    tarball.write(S3Writer(s3_location, S3(replace(named, profile="backup"), side="destination")))
    assert object_store.get(s3_location) == tarball.data

    with pytest.raises((Unauthorized, Denied)):
        tarball.write(S3Writer(s3_location, S3(replace(named, profile="other"), side="destination")))


def test_the_environment_is_looked_into(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)

    tarball.write(S3Writer(s3_location, S3(S3Options(), side="destination")))

    assert object_store.get(s3_location) == tarball.data


def test_nobody_is_told_to_look_for_credentials(
    object_store: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tarball: Tarball, s3_location: str
) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    nobody = object_store.settings.with_(access_key="", secret_key="")

    with pytest.raises(Unauthorized, match=r"~/\.aws"):
        tarball.write(S3Writer(s3_location, S3(nobody, side="destination")))
    with pytest.raises(Unauthorized, match=r"~/\.aws"):
        S3(replace(nobody, role=ROLE), side="destination")
