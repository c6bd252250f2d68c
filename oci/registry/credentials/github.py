"""GitHub's container registry."""

from __future__ import annotations

from collections.abc import Mapping

from oci.registry.credentials.credential import Credential


def covers(registry: str) -> bool:
    return registry == "ghcr.io"


class GitHubKeychain:
    """`ghcr.io` with GITHUB_TOKEN; the user is GITHUB_ACTOR, which the registry doesn't look at."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        token = self._environ.get("GITHUB_TOKEN", "")
        if not covers(registry) or not token:
            return None
        return Credential(self._environ.get("GITHUB_ACTOR") or "unset", token, origin="GITHUB_TOKEN")
