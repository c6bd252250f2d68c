from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

UNNEEDED = ("yaml", "encodings.idna", "rich", "httpx", "pydantic", "boto3", "prefect")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", ["flows", "flows.cli", "flows.cli.copy"])
def test_prefect_is_not_imported_before_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('prefect', 'pydantic') if name in sys.modules])"

    assert python(code) == "[]"


def test_a_copy_of_a_lock_starts_without_what_it_does_not_need(tmp_path: Path) -> None:
    """PyYAML and the tables of international host names took a sixth of the start."""
    lock = tmp_path / "images.yml"
    image = f"127.0.0.1:1/a/b@sha256:{'0' * 64}"
    lock.write_text(f"---\napiVersion: imgpkg.carvel.dev/v1alpha1\nimages:\n- image: {image}\nkind: ImagesLock\n")
    command = ["copy", "--lock", str(lock), "--to-repo", "127.0.0.1:1/copies", "--registry-retry-count", "0"]
    code = (
        f"import sys, flows.cli; print(flows.cli.main({command})); print([n for n in {UNNEEDED} if n in sys.modules])"
    )

    assert python(code).splitlines()[-2:] == ["1", "[]"]


@pytest.mark.parametrize(
    "first",
    ["from flows import relocate", "import flows.relocate; from flows import relocate"],
)
def test_the_name_relocate_is_the_flow_in_whatever_order_it_is_imported(first: str) -> None:
    assert python(f"{first}; import flows; print(type(flows.relocate).__name__)") == "Flow"


def test_everything_in_all_is_there() -> None:
    code = "import flows; print(all(getattr(flows, name) is not None for name in flows.__all__), len(flows.__all__))"

    assert python(code).startswith("True")


def test_a_name_that_is_not_there_is_said() -> None:
    assert "no attribute 'teleport'" in python(
        "import flows\ntry:\n  flows.teleport\nexcept AttributeError as error:\n  print(error)"
    )


def test_a_copy_imports_nothing_of_signatures_that_it_was_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code = f"""
import sys
from pathlib import Path
from flows.cli.app import run
for arguments in (
    ["push", "-i", "oci:{tmp_path}/a:1", "-f", "{tmp_path}/file"],
    ["copy", "-i", "oci:{tmp_path}/a:1", "--to-repo", "oci:{tmp_path}/b"],
    ["copy", "-i", "oci:{tmp_path}/a:1", "--to-tar", "{tmp_path}/a.tar"],
    ["copy", "--tar", "{tmp_path}/a.tar", "--to-repo", "oci:{tmp_path}/c"],
):
    assert run([*arguments, "--quiet"]) == 0
rooms = ("oci.receipts", "oci.signatures.keys", "cryptography", "nacl")
print("imported:", [name for name in sys.modules if name.startswith(rooms)])
"""

    assert python(code).endswith("imported: []")
