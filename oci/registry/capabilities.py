"""What has been learned about a registry while talking to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Capabilities:
    """Shared by everything that talks to one registry. None: not known yet. Two threads that learn the same thing at
    once learn the same thing, so there is no lock."""

    self_mount: bool | None = None
    """Does `POST uploads/?mount=D&from=<the repository itself>` answer 201 for a blob that is there? Existence and
    upload start in one request (seen on docker-registry 2.8.2)."""
    single_post: bool | None = None
    """Does `POST uploads/?digest=D` with the whole blob store it? (distribution-spec, "Single POST")."""
    referrers_api: bool | None = None
    _single_post_asked: bool = False

    def may_try_single_post(self) -> bool:
        """True where it works, and once where nobody knows yet: only one blob is sent to find out."""
        if self.single_post is None and not self._single_post_asked:
            self._single_post_asked = True
            return True
        return bool(self.single_post)
