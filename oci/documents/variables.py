"""Variables of the environment in a file of mirrors: `${NAME}` for the names that the file lists under `environment`.

The author of the file chooses the registries, and a registry reads the names that it is asked for. So a variable that
may hold a login is used only where the machine lets mirrors decide that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from oci.documents.composer import Path

CONSENT = "TRANSSHIP_MIRRORS_MAY"
"""The variable with which a machine lets mirrors decide more: `aws,environment,insecure,paths,proxy,verify_tls`."""

_LOGIN = re.compile(
    r"PASS|TOKEN|SECRET|CREDENTIAL|(^|_)(AUTH|KEY|PWD)(_|$)|^(IMGPKG|PREFECT|TRANSSHIP)_", re.IGNORECASE
)
"""Names of variables that may hold a login."""

_VARIABLE = re.compile(r"\$(\$|\{([A-Za-z_][A-Za-z0-9_]*)\}|\{[A-Za-z_][^}]*\}?)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Also half a surrogate pair, which stands for a byte of an environment that isn't UTF-8."""


class Unusable(str):
    """What stands for a text whose variable can't be used. That is a mistake of its own, and what is wrong with this
    text is none."""

    __slots__ = ()


def agreed_to(environment: Mapping[str, str]) -> frozenset[str]:
    """Returns what the machine lets mirrors decide, in words."""
    return frozenset(word.strip() for word in environment.get(CONSENT, "").split(",") if word.strip())


def expanded(
    value: dict[str, Any], environment: Mapping[str, str], problem: Callable[[Path, str], None]
) -> dict[str, Any]:
    """Returns the file's values with variables replaced, and without the list of their names; `$$` is a dollar sign.
    Without that list dollar signs are those of regular expressions, and `${NAME}` is a mistake. Each goes to `problem`,
    with its path, and what is wrong with a variable once; an Unusable stands for the text."""
    names = value.get("environment")
    body = {key: item for key, item in value.items() if key != "environment"}
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        problem(("environment",), "input should be a list of names of variables")
        return body
    agreed = "environment" in agreed_to(environment)
    reported = set[str]()

    def mistake(name: str) -> str:
        """What is wrong with using a variable there, or nothing."""
        if name not in (names or ()):
            return f"${{{name}}} isn't among the names under `environment`: [{name}]"
        if not agreed and _LOGIN.search(name):
            return f"{name} may hold a login: set {CONSENT}=environment on this machine to have it used"
        if name not in environment:
            return f"the variable {name} isn't set"
        if _CONTROL.search(environment[name]):
            return f"the variable {name} has a line break, a control character, or a byte that isn't UTF-8"
        return ""

    def walk(item: Any, path: Path) -> Any:
        if isinstance(item, list):
            return [walk(element, (*path, number)) for number, element in enumerate(item)]
        if isinstance(item, dict):
            return {key: walk(element, (*path, key)) for key, element in item.items()}
        if not isinstance(item, str):
            return item
        mistakes: list[str] = []

        def variable(match: re.Match[str]) -> str:
            name = match.group(2)
            if match.group(1) == "$":
                return match.group(0) if names is None else "$"
            if name is None:
                mistakes.append(f"{match.group(0)[:60]!r}: only ${{NAME}} is read, without anything behind the name")
            elif wrong := mistake(name):
                mistakes.append(wrong)
            return environment.get(name or "", "")

        text = _VARIABLE.sub(variable, item)
        for wrong in mistakes:
            if wrong not in reported:
                reported.add(wrong)
                problem(path, wrong)
        return Unusable() if mistakes else text

    result: dict[str, Any] = walk(body, ())
    return result
