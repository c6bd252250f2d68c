"""`transship policy check`, and what the other commands do with a policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.servers.strict_registry import StrictRegistry
from tests.support.command import transship
from tests.support.content import image
from tests.support.signing import Signer, cosign_sign

CONTENT = image(811)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """Whose key the policy in `policy.yaml` names."""
    made = Signer.make()
    made.write(tmp_path / "release.pub")
    (tmp_path / "policy.yaml").write_text('version: 1\ndefault: reject\nrules: [{to: "*", keys: [release.pub]}]\n')
    return made


def test_a_check_explains_each_step_and_ends_with_three_or_nothing(
    origin: StrictRegistry, signer: Signer, tmp_path: Path
) -> None:
    command = ("policy", "check", f"{origin.host}/shop/web:1.0", "--policy", str(tmp_path / "policy.yaml"))
    refused, plainly = transship(*command, "--json"), transship(*command)
    cosign_sign(origin.url, "shop/web", CONTENT, signer, reference=f"{origin.host}/shop/web")
    accepted = transship(*command, "--json")

    assert (refused.code, accepted.code) == (3, 0)
    steps = json.loads(accepted.out)["Result"]["steps"]
    assert any("release.pub" in step for step in steps)
    assert plainly.out.splitlines() == [f"policy | {step}" for step in json.loads(refused.out)["Result"]["steps"]]
    assert str(tmp_path / "policy.yaml") in json.loads(refused.out)["Error"]["Hint"]


def test_a_key_that_isnt_there_is_named(origin: StrictRegistry, signer: Signer, tmp_path: Path) -> None:
    del signer
    (tmp_path / "release.pub").unlink()
    done = transship(
        "policy", "check", f"{origin.host}/shop/web:1.0", "--policy", str(tmp_path / "policy.yaml"), "--no-state"
    )

    assert done.code == 2
    key = tmp_path / "release.pub"
    assert f"{tmp_path / 'policy.yaml'}: reading the key {key}: no such file or directory" in done.err


def test_a_copy_of_a_refused_image_ends_with_three(origin: StrictRegistry, signer: Signer, tmp_path: Path) -> None:
    del signer
    policy = ("--policy", str(tmp_path / "policy.yaml"))
    with StrictRegistry() as destination:
        to = ("--to-repo", f"{destination.host}/mirror/web")
        done = transship("copy", "-i", f"{origin.host}/shop/web:1.0", *to, *policy)
        planned = transship("copy", "-i", f"{origin.host}/shop/web:1.0", *to, *policy, "--plan")

        assert (done.code, planned.code) == (3, 3)
        assert not [seen for seen in destination.requests() if seen.method in ("POST", "PUT")]


def test_a_mirror_run_and_its_plan_say_what_is_refused(origin: StrictRegistry, signer: Signer, tmp_path: Path) -> None:
    del signer
    with StrictRegistry() as destination:
        (tmp_path / "mirrors.yaml").write_text(
            f"""version: 1
mirrors:
  - name: web
    source: {{repository: "{origin.host}/shop/web"}}
    destinations: [{{repository: "{destination.host}/mirror/web"}}]
    policy: {tmp_path}/policy.yaml
"""
        )
        file = ("-f", str(tmp_path / "mirrors.yaml"))
        planned = transship("mirror", "plan", *file)
        done = transship("mirror", "run", *file)

    reason = "it has no signature"
    assert reason in planned.err
    assert (planned.code, done.code) == (0, 3)
    assert reason in done.err


@pytest.mark.parametrize("arguments", [("--require-signatures",), ("--policy", "/no/such/policy.yaml")])
def test_a_policy_that_is_not_there_is_refused_with_the_way_to_write_one(arguments: tuple[str, ...]) -> None:
    done = transship("copy", "-i", "registry.invalid/a/b:1", "--to-repo", "registry.invalid/c/d", *arguments)

    assert done.code in (1, 2)
    assert "default: reject" in done.err
