"""The front door: its examples run, it has what it promises, and importing it costs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import oci
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import bundle, image, push

PAGE = Path(__file__).parent.parent.parent / "docs" / "library.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(
    number: int, registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    web = push(registry.url, f"{repository}/shop/web", image(1), "1.4.0")
    push(registry.url, f"{repository}/shop/bundle", bundle([web]), "1.4.0")
    push(other_registry.url, f"{repository}/mirror/web", image(1), "1.4.0")
    push(other_registry.url, f"{repository}/mirror/web", image(3), "old")
    (tmp_path / "mirrors.yaml").write_text(
        f"version: 1\nmirrors:\n  - name: web\n    source: {{repository: {registry.host}/{repository}/shop/web}}\n"
        f"    destinations: [{{repository: {other_registry.host}/{repository}/mirrored}}]\n"
    )
    example = EXAMPLES[number]
    for name, server in (("registry.corp.example", other_registry), ("registry.example", registry)):
        example = example.replace(f'"{name}"', f'"{server.host}"').replace(f"{name}/", f"{server.host}/{repository}/")
    example = example.replace("/srv/", f"{tmp_path}/").replace('("shop/web")', f'("{repository}/shop/web")')

    exec(compile(example, f"docs/library.md, example {number + 1}", "exec"), {})


def test_every_name_has_an_example() -> None:
    used = set(re.findall(r"\w+", " ".join(EXAMPLES)))

    assert sorted(oci.__all__) == oci.__all__
    assert set(oci.__all__) <= used


@pytest.mark.parametrize("name", oci.__all__)
def test_every_name_is_documented_and_loads(name: str) -> None:
    value = getattr(oci, name)

    assert value.__doc__
    assert name in dir(oci)


def test_a_name_that_it_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = oci.nothing


def test_importing_it_loads_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import oci; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert loaded == {"oci"}
