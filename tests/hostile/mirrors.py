"""mirrors.yaml, read by whoever runs it and written by somebody else."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

from collections.abc import Iterator

from oci.errors import InvalidConfig
from tests.hostile.case import ACCEPTED, Case, given

FIELDS = (
    "name: ../x", "name: ''", "name: [x]", "name: 'a\\nb'", "name: {a: b}", "source: registry.example/shop/web", "source: {}", "source: {repository: ''}",
    "source: {repository: 'http://registry.example/ab'}", "source: {repository: registry.example/../ab}", "source: {repository: [a]}",
    "source: {repository: registry.example/ab, bundle: registry.example/ab}", "source: {nothing: x}", "source: {repository: registry.example/ab@sha256:beef}",
    "destinations: []", "destinations: x", "destinations: [{}]", "destinations: [x]", "destinations: [{repository: registry.example/AB}]",
    "destinations: [{repository: 'a b'}]", 'destinations: [{repository: "oci:/tmp/a\\0b"}]', 'source: {repository: "oci:/tmp/\\uD800"}', "source: {<<: words}", "source: {<<: [{repository: registry.example/ab}, x]}",
    "destinations: [{repository: registry.example/ab:tag}]", "destinations: {repository: registry.example/ab}",
    "tags: x", "tags: [x]", "tags: [{semver: x}]", "tags: [{semver: ['not a range']}]", "tags: [{allow: ['(']}]", "tags: [{allow: ['(?=x)']}]",
    "tags: [{allow: ['(a)\\1']}]", "tags: [{latest: -1}]", "tags: [{latest: many}]", "tags: [{latest: 1.5}]", "tags: [{minimum_age: soon}]",
    "tags: [{minimum_age: -7d}]", "tags: [{minimum_age: 99999999999999999999d}]", "tags: [{latest_by: luck}]", "tags: [{unknown: 1}]", "tags: [{deny: 7}]",
    "platforms: linux/amd64", "platforms: [7]", "schedule: {cron: '99 99 99 99 99'}", "schedule: {cron: '* * *'}", "schedule: {cron: 'id; rm'}",
    "schedule: {interval: 0s}", "schedule: {interval: -6h}", "schedule: {interval: 1}", "schedule: {rrule: FREQ=SOMETIMES}", "schedule: {cron: '0 3 * * *', timezone: Mars/North}",
    "schedule: {cron: '0 3 * * *', interval: 6h}", "schedule: x", "artifacts: [everything]", "artifacts: 7", "immutable: ['(']", "immutable: x",
    "limits: {concurrency: 0}", "limits: {concurrency: 99999999999}", "limits: {concurrency: x}", "limits: x", "on_failure: explode", "unknown: 1", "keep_alive: sometimes",
)  # fmt: skip
WHOLE = {
    "nothing": "",
    "null": "null\n",
    "a list": "- a\n",
    "a text": "words\n",
    "no version": "mirrors: []\n",
    "another version": "version: 2\nmirrors: []\n",
    "a version of text": "version: one\nmirrors: []\n",
    "mirrors is a text": "version: 1\nmirrors: x\n",
    "a mirror is a text": "version: 1\nmirrors: [x]\n",
    "an unknown key": "version: 1\nmirror: []\n",
    "a tag of Python": "version: 1\nmirrors: !!python/object/apply:os.system [id]\n",
    "an unclosed bracket": "version: 1\nmirrors: [\n",
    "a key twice": "version: 1\nversion: 1\nmirrors: []\n",
    "two documents": "version: 1\n---\nversion: 1\n",
    "an alias of itself": "version: 1\nmirrors: &a [*a]\n",
    "a billion laughs": "version: 1\nx-a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"x-{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)) + "mirrors: *m\n",
    "10,000 levels": "version: 1\nmirrors: " + "[" * 10_000,
    "an unset variable": "version: 1\nmirrors: [{name: '${NOT_SET_ANYWHERE}', source: {repository: registry.example/ab}, destinations: [{repository: registry.example/cd}]}]\n",
    "a variable that isn't closed": "version: 1\nmirrors: [{name: '${NOT', source: {repository: registry.example/ab}, destinations: [{repository: registry.example/cd}]}]\n",
    "registries is a list": "version: 1\nregistries: [x]\nmirrors: []\n",
    "a registry with a path": "version: 1\nregistries: {registry.example/a: {}}\nmirrors: []\n",
    "a registry with a login in its proxy": "version: 1\nregistries: {registry.example: {proxy: 'http://a:b@c'}}\nmirrors: []\n",
    "a registry's time-out below zero": "version: 1\nregistries: {registry.example: {connect_timeout: -1}}\nmirrors: []\n",
    "a time-out that isn't a number": "version: 1\nregistries: {registry.example: {connect_timeout: .nan}}\nmirrors: []\n",
    "a time-out without an end": "version: 1\nregistries: {registry.example: {connect_timeout: .inf}}\nmirrors: []\n",
    "a bucket's endpoint that is a file": "version: 1\nbuckets: {b: {endpoint: 'file:///etc/passwd'}}\nmirrors: []\n",
    "bytes of zero": "version: 1\nmirrors: \x00\n",
    "a number of 5,000 digits": "version: " + "1" * 5000 + "\n",
}  # fmt: skip
HARMLESS = (
    "x-owner: [1, {a: b}]",
    "tags: [{allow: ['(a+)+b', '(a|a)*c']}]",
    "tags: [{allow: ['" + "a?" * 200 + "']}]",
    "platforms: []",
    "platforms: [../x]",
)


def document(field: str) -> str:
    """A mirror with one of its fields replaced."""
    fields = {
        "name": "name: web",
        "source": "source: {repository: registry.example/shop/web}",
        "destinations": "destinations: [{repository: registry.example/mirror/web}]",
    }
    fields[field.partition(":")[0]] = field
    return "version: 1\nmirrors:\n- " + "\n  ".join(fields.values()) + "\n"


def cases() -> Iterator[Case[bytes]]:
    for field in FIELDS:
        yield Case(field, given(document(field).encode()), InvalidConfig)
    for name, text in WHOLE.items():
        yield Case(name, given(text.encode()), InvalidConfig)
    for field in HARMLESS:
        yield Case(field[:60], given(document(field).encode()), ACCEPTED)
    yield Case("bytes that aren't UTF-8", lambda: b"version: 1\nmirrors: \xff\n", InvalidConfig)
