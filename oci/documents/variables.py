"""Variables of the environment in a file of mirrors: `${NAME}` for the names that the file lists under `environment`.

The author of the file chooses the registries, and a registry reads the names that it is asked for. So a variable that
may hold a login is used only where the machine lets mirrors decide that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from oci.documents.yaml_lines import Path

CONSENT = "TRANSSHIP_MIRRORS_MAY"
"""The variable with which a machine lets mirrors decide more: `aws,environment,insecure,paths,proxy,verify_tls`."""

_LOGIN = re.compile(
    r"PASS|TOKEN|SECRET|CREDENTIAL|(^|_)(AUTH|KEY|PWD)(_|$)|^(IMGPKG|PREFECT|TRANSSHIP)_", re.IGNORECASE
)
"""Names of variables that may hold a login."""

_VARIABLE = re.compile(r"\$(\$|\{([A-Za-z_][A-Za-z0-9_]*)\})")


def agreed_to(environment: Mapping[str, str]) -> frozenset[str]:
    """Returns what the machine lets mirrors decide, in words."""
    return frozenset(word.strip() for word in environment.get(CONSENT, "").split(",") if word.strip())


def expanded(
    value: dict[str, Any], environment: Mapping[str, str], problem: Callable[[Path, str], None]
) -> dict[str, Any]:
    """Returns the file's values with variables replaced, and without the list of their names; `$$` is a dollar sign.
    Without that list dollar signs are those of regular expressions, and `${NAME}` is a mistake. Each goes to `problem`,
    with its path."""
    names = value.get("environment")
    body = {key: item for key, item in value.items() if key != "environment"}
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        problem(("environment",), "input should be a list of names of variables")
        return body
    agreed = "environment" in agreed_to(environment)

    def replaced(path: Path, text: str) -> str:
        def variable(match: re.Match[str]) -> str:
            name = match.group(2)
            if name is None:
                return match.group(0) if names is None else "$"
            if name not in (names or ()):
                problem(path, f"${{{name}}} isn't among the names under `environment`: [{name}]")
                return match.group(0)
            if not agreed and _LOGIN.search(name):
                problem(path, f"{name} may hold a login: set {CONSENT}=environment on this machine to have it used")
                return match.group(0)
            if name not in environment:
                problem(path, f"the variable {name} isn't set")
            return environment.get(name, "")

        return _VARIABLE.sub(variable, text)

    def walk(item: Any, path: Path) -> Any:
        if isinstance(item, str):
            return replaced(path, item)
        if isinstance(item, list):
            return [walk(element, (*path, number)) for number, element in enumerate(item)]
        if isinstance(item, dict):
            return {key: walk(element, (*path, key)) for key, element in item.items()}
        return item

    result: dict[str, Any] = walk(body, ())
    return result
