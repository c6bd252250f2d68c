"""`transship policy check`."""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, registry_flags
from flows.cli.click_ext import Invocation, Verb, boolean, everywhere, group
from oci.errors import InvalidInput
from oci.reference import Reference, parse_any, parse_store
from oci.signatures.artifacts import WRITE_ONE
from oci.store import found_manifest

policy = group(
    "policy",
    "Policies of signatures.",
    {"check": ("flows.cli.images.policy:check_policy", "Explain what a policy says of an image")},
)


@click.command(
    name="check",
    cls=Verb,
    examples=(
        "registry.example/shop/web:1.25 --policy policy.yaml --to registry.corp.example/mirror/web",
        "registry.example/shop/web:1.25 --policy /etc/containers/policy.json --json",
        "oci:./mirror:1.4.0 --policy policy.yaml --require-signatures",
    ),
)
@click.argument("reference", metavar="REFERENCE")
@click.option(
    "--policy", default="", metavar="FILE", help="Policy file: transship's YAML, or policy.json as skopeo has it."
)
@click.option("--to", default="", metavar="REPOSITORY", help="Where the image is to go; by default where it is.")
@boolean("--require-signatures", help="Refuse what the policy accepts without a signature, too.")
@registry_flags()
@everywhere
@click.pass_obj
def check_policy(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Explain, step by step, whether an image may go to a repository. Nothing is copied; exit code 3 when it may not.

    REFERENCE is REGISTRY/REPOSITORY[:TAG][@DIGEST] or oci:PATH[:TAG].
    """
    if not flags["policy"]:
        raise InvalidInput("Expected --policy", hint=WRITE_ONE)
    reference = parse_any(flags["reference"])
    with registry.session(invocation, side="") as session:
        gate = session.gate(flags["policy"], signed=flags["require_signatures"])
        source = session.source(reference.repository)
        digest = found_manifest(source, reference.identifier).digest
        image = Reference(reference.repository, reference.tag, digest)
        decision = gate.decide(source, image, parse_store(flags["to"]) if flags["to"] else image.repository)
    invocation.output.result(**decision.to_dict())
    for step in decision.steps:
        invocation.output.block(f"policy | {step}\n")
    if not decision.accepted:
        raise decision.error(hint=f"ask who publishes it for what is missing, or change the rule in {flags['policy']}")
    invocation.output.summary(f"{decision.image} -> {decision.destination}: accepted ({decision.scope})")
