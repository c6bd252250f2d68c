"""Flags derived from declarations: what they take, and what they refuse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from flows.cli.click_ext import Invocation, Verb
from flows.cli.flags import flags_of, registry_flags
from flows.cli.output import ExitCode
from oci.options import Options, fields_of, option
from oci.registry.options import RegistryOptions
from tests.support.command import transship


class Sample(Options):
    """A sample."""

    size: int = option(16 << 20, "How big.", unit="bytes", ge=5)
    age: timedelta = option(timedelta(), "How old.")
    words: tuple[str, ...] = option((), "Some words.", short="-w")
    rules: tuple[str, ...] = option((), "Some rules.", commas=False)
    mode: Literal["a", "b"] = option("a", "Which.")
    labels: dict[str, str] = option({}, "Labels.")
    on: bool = option(True, "A switch.", flag="--enabled")


def run(*arguments: str) -> tuple[Sample | None, str]:
    taken: list[Sample] = []

    @click.command(cls=Verb)
    @flags_of(Sample, "sample")
    def command(invocation: Invocation, /, sample: Sample) -> None:
        taken.append(sample)

    done = CliRunner().invoke(command, arguments)
    return taken[0] if taken else None, done.output


def test_nothing_given_is_the_defaults() -> None:
    assert run() == (Sample(), "")


def test_values_are_read_as_the_declaration_says() -> None:
    sample, _ = run(
        "--size", "1MiB", "--age", "7d", "-w", "a,b", "--words", "c", "--rules", "x{2,3}", "--mode", "b",
        "--labels", "k=v,l=w=x", "--enabled=false",
    )  # fmt: skip
    assert sample == Sample(
        size=1 << 20,
        age=timedelta(days=7),
        words=("a", "b", "c"),
        rules=("x{2,3}",),
        mode="b",
        labels={"k": "v", "l": "w=x"},
        on=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "4"], "Invalid value for '--size': expected a whole number >= 5"),
        (["--size", "big"], "Invalid value for '--size': invalid size"),
        (["--age", "7"], "Invalid value for '--age': '7' is no length of time"),
        (["--mode", "c"], "Invalid value for '--mode': "),
        (["--labels", "k"], "Invalid value for '--labels': 'k' is not KEY=VALUE"),
    ],
)
def test_a_mistake_names_its_flag(arguments: list[str], message: str) -> None:
    taken, output = run(*arguments)

    assert taken is None
    assert message in output


TEXTS: dict[str, tuple[str, Any]] = {
    "ca_files": ("/a.pem,/b.pem", ("/a.pem", "/b.pem")),
    "client_certificate": ("/c.pem", "/c.pem"),
    "client_key": ("/k.pem", "/k.pem"),
    "proxy": ("http://proxy.example:3128", "http://proxy.example:3128"),
    "retries": ("7", 7),
    "retry_budget": ("1m30s", 90.0),
    "connect_timeout": ("500ms", 0.5),
    "header_timeout": ("2m", 120.0),
    "idle_timeout": ("5s", 5.0),
    "minimum_rate": ("2KiB", 2048),
    "requests_per_second": ("2.5", 2.5),
    "bandwidth": ("20MiB", 20 << 20),
    "quota_reserve": ("10", 10),
    "chunk_size": ("16MiB", 16 << 20),
    "manifest_limit": ("8MiB", 8 << 20),
    "profile": ("harbor", "harbor"),
    "parallel_reads": ("8", 8),
    "aws_profile": ("builds", "builds"),
    "aws_role": ("arn:aws:iam::123456789012:role/pusher", "arn:aws:iam::123456789012:role/pusher"),
}


@pytest.mark.parametrize("name", [field.name for field in fields_of(RegistryOptions) if field.name != "concurrency"])
def test_every_option_of_a_registry_has_a_flag_that_sets_it(name: str) -> None:
    field = next(field for field in fields_of(RegistryOptions) if field.name == name)
    taken: list[RegistryOptions] = []

    @click.command(cls=Verb)
    @registry_flags()
    def command(invocation: Invocation, /) -> None:
        taken.append(invocation.registry)

    switch = f"{field.flag}={'false' if field.default else 'true'}"
    text, value = TEXTS.get(name, ("", not field.default))
    done = CliRunner().invoke(command, [field.flag, text] if text else [switch])

    assert done.output == ""
    assert getattr(taken[0], name) == value != field.default


@pytest.mark.parametrize(
    "flags",
    [
        ("tag", "delete", "-i", "a.example/web:1", "-i", "a.example/web:2"),
        ("tag", "delete", "-i", "a.example/web:1", "--image=a.example/web:2", "--yes"),
        ("tag", "list", "-ia.example/web", "-i=b.example/web"),
        ("copy", "-i", "a.example/web:1", "--to-repo", "b.example/web", "--to-repo", "c.example/web"),
        ("copy", "-i", "a.example/web:1", "--to-tar", "a.tar", "--to-tar", "b.tar"),
        ("pull", "-i", "a.example/web:1", "-o", "one", "--output", "two"),
        ("mirror", "run", "-f", "one.yaml", "-f", "two.yaml"),
        ("describe", "-b", "a.example/web:1", "-b", "a.example/web:2"),
    ],
)
def test_what_is_worked_on_is_named_once(flags: tuple[str, ...]) -> None:
    done = transship(*flags)

    assert done.code == ExitCode.USAGE
    assert "is here 2 times" in done.err


def test_of_a_setting_the_last_counts() -> None:
    assert run("--mode", "a", "--mode", "b", "--size", "6", "--size", "7") == (Sample(mode="b", size=7), "")
