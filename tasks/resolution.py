"""The answer to what a source reference means."""

from __future__ import annotations

from pydantic import BaseModel


class Resolution(BaseModel):
    """What a source reference turned out to be. For a lock or an archive, which pins its images itself, there is no
    digest."""

    what: str
    """"bundle", "image", "index", "lock" or "archive"."""
    reference: str
    """As it was asked for, in canonical form."""
    pinned: str
    """The same by digest; a lock or an archive as it is."""
    digest: str = ""
    tag: str = ""
    """The tag that the source carries, and passes on unless other tags are asked for."""
    media_type: str = ""
    size: int = 0
