"""The house rules that a reader can't check by eye: which way imports point, and that `oci` is ours."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("oci", "tasks", "flows")
INSIDE_OCI = (
    {
        "errors",
        "digest",
        "reference",
        "descriptor",
        "manifest",
        "store",
        "meter",
        "options",
        "units",
        "output",
        "platforms",
    },
    {"documents", "registry", "layout", "files"},
    {"bundle"},
    {"archive"},
    {"signatures"},
    {"relocation"},
    {"receipts"},
    {"export"},
    {"prune"},
    {"mirror"},
    {"library"},
)
VAGUE = re.compile(
    "asked|care|done|found|given|held|kept|known|left|made|one|own|rest|said|seen|taken|there|told|wanted|what",
    re.IGNORECASE,
)
"""Words that name nothing: a thing is called by what it is, in the words of the specifications (docs/glossary)."""
NAMED_SO = {
    "DONE": {"oci/relocation/transfer.py", "flows/cli/output.py"},
    "KEPT": {"flows/deploy/deployments.py"},
    "held": {"oci/mirror/execute.py", "oci/mirror/results.py"},
    "kept": {"oci/export/assembly.py", "oci/export/export.py", "oci/prune/plan.py"},
    "left": {"oci/documents/yamltext.py"},
    "made": {"oci/prune/plan.py"},
    "taken": {"oci/mirror/selection.py"},
    "what": {
        "oci/archive/inventory.py",
        "oci/relocation/report.py",
        "tasks/artifacts/history.py",
        "tasks/relocate.py",
    },
}
"""Words that stand in reports, stored files and exit codes, which users read; and the left of two sides."""
LATE = {("oci.mirror.config", "oci.mirror.reader")}
"""Imports that may close a circle: options that are read in a way of their own import their reader as they are read."""
BOTO3_MODULES = {"oci/archive/s3.py", "oci/registry/credentials/keychains.py"}


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor: str) -> None:
    above = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"deployments", "tests"}
    offenders = {str(path.relative_to(ROOT)): tops(path) & above for path in modules(floor)}
    assert not {name: names for name, names in offenders.items() if names}


def test_rooms_of_oci_import_only_rooms_below() -> None:
    level = {room: number for number, rooms in enumerate(INSIDE_OCI) for room in rooms}
    offenders = []
    for path in modules("oci"):
        room = path.relative_to(ROOT / "oci").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        assert room in level, f"{room} has no place in the house: say where it stands"
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "oci" and len(parts) > 1 and level.get(parts[1], 0) > level[room]:
                offenders.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not offenders


def test_no_modules_import_each_other() -> None:
    """Not even for a type, or late, in a function: two modules in a circle are one that is read in two places."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules(*FLOORS)}
    below = {
        name: {other for other in imports(path) if other in paths and other != name and (name, other) not in LATE}
        for name, path in paths.items()
    }
    while leaves := [name for name, names in below.items() if not names & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below, f"in a circle, or above one: {sorted(below)}"


def test_rooms_of_tasks_stand_below_the_tasks() -> None:
    rooms = modules("tasks/artifacts", "tasks/fleet")
    allowed = ("tasks.artifacts", "tasks.fleet")
    assert not [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in rooms
        for name in imports(path)
        if name.startswith("tasks.") and not name.startswith(allowed)
    ]


def test_oci_knows_no_prefect_and_no_command_line() -> None:
    foreign = {"prefect", "click", "rich"}
    assert not [path for path in modules("oci") if tops(path) & foreign]


def test_oci_needs_no_pydantic() -> None:
    assert not [path for path in modules("oci") if tops(path) & {"pydantic", "pydantic_core"}]


def test_boto3_is_imported_where_it_may_be() -> None:
    found = {str(path.relative_to(ROOT)) for path in modules(*FLOORS) if tops(path) & {"boto3", "botocore"}}
    assert found <= BOTO3_MODULES


def test_drivers_do_not_speak_http() -> None:
    assert not [path for path in modules("tasks", "flows") if tops(path) & {"httpx", "httpcore"}]


def test_packages_are_listed_in_full() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    present = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for floor in FLOORS
        for path in (ROOT / floor).rglob("__init__.py")
    }
    assert sorted(present) == sorted(listed)


def test_modules_stay_under_400_lines() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules(*FLOORS)}
    assert not {name: lines for name, lines in long.items() if lines > 400}


def test_rooms_have_at_most_12_modules() -> None:
    rooms = Counter(str(path.parent.relative_to(ROOT)) for path in modules(*FLOORS) if path.name != "__init__.py")
    assert not {room: count for room, count in rooms.items() if count > 12}


def test_a_module_gives_a_name_once() -> None:
    """A second constant of the same name would change the first for the functions between the two."""
    twice = {}
    for path in modules(*FLOORS):
        assigned = Counter(
            target.id
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        )
        twice[str(path.relative_to(ROOT))] = [name for name, count in assigned.items() if count > 1]
    assert not {path: names for path, names in twice.items() if names}


def names_in(tree: ast.AST) -> Iterator[str]:
    """Every name that a module gives: variables, parameters, attributes, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def test_names_say_what_things_are() -> None:
    vague = {
        (str(path.relative_to(ROOT)), name)
        for path in modules(*FLOORS)
        for name in names_in(ast.parse(path.read_text()))
        if VAGUE.fullmatch(name.strip("_"))
    }
    assert not {(path, name) for path, name in vague if path not in NAMED_SO.get(name, ())}
    assert {(path, name) for name, paths in NAMED_SO.items() for path in paths} <= vague


def test_a_class_name_has_one_home() -> None:
    homes: dict[str, set[str]] = {}
    for path in modules(*FLOORS):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}


def test_a_module_name_stands_in_three_rooms_at_most() -> None:
    rooms = Counter(path.name for path in modules(*FLOORS) if path.name != "__init__.py")
    assert not {name: count for name, count in rooms.items() if count > 3}


@pytest.mark.parametrize("name", FLOORS)
def test_the_imported_packages_are_ours(name: str) -> None:
    """`oci` is also the import name of Oracle's SDK: in one environment with it, one of the two would be shadowed."""
    found = Path(str(importlib.import_module(name).__file__)).parent
    assert found == ROOT / name, f"{name} is imported from {found}: use an environment of its own for transship"


def test_the_command_starts_without_anything_heavy() -> None:
    heavy = ("prefect", "httpx", "boto3", "pydantic", "rich", "yaml")
    code = "import sys, flows.cli; print(*[name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run(  # the interpreter and a fixed text
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == ""


def test_every_folder_says_what_belongs_there() -> None:
    folders = {path.parent for path in modules(*FLOORS, "tests")} | {ROOT / "deployments"}
    assert not [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "README.md").is_file()]


def test_json_of_strangers_is_parsed_in_one_place() -> None:
    """`parse_json` makes a ValueError of whatever is wrong with it; `json.loads` raises RecursionError, too."""
    users = {
        str(path.relative_to(ROOT))
        for package in ("oci", "tasks", "flows")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\bjson\.loads?\(|\bJSONDecoder\(", path.read_text())
    }

    assert users == {"oci/descriptor.py"}


def test_paths_that_a_person_named_are_written_one_way() -> None:
    """`replace_file` puts a file in place of whatever is there: only rooms with a folder of their own may."""
    own = {"oci/output.py", "oci/layout/index.py"}
    users = {
        str(path.relative_to(ROOT))
        for package in ("oci", "tasks", "flows")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\breplace_file\b", path.read_text())
    }

    assert users == own


@pytest.mark.parametrize("package", ["oci", "flows"])
def test_names_of_a_front_door_are_the_same_for_type_checkers_and_programs(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    imported = {(alias.asname, node.module) for node in imports for alias in node.names}
    door = importlib.import_module(package)

    assert imported == {(name, home) for home, names in _homes(tree).items() for name in names}
    assert sorted(name or "" for name, _ in imported) == sorted(door.__all__)


def _homes(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Returns the table of a front door: names by module."""
    tables = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    [table] = tables
    return dict(table)
