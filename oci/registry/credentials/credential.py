"""A login of a registry, as a value."""

from __future__ import annotations

import msgspec


class Credential(msgspec.Struct, frozen=True):
    """A user with a password, an identity token (an OAuth2 refresh token) or a registry token (a Bearer token that is
    sent as it is); without any of them, anonymous. `origin` names the place that it comes from, in words."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    origin: str = ""
    expires_at: float = 0.0
    """Seconds since the epoch; 0 for never."""

    @property
    def is_anonymous(self) -> bool:
        return not (self.username or self.password or self.identity_token or self.registry_token)

    @property
    def identity(self) -> str:
        """`user bob (docker config)`, `token (IMGPKG_TOKEN)`, `anonymous`: never the secret."""
        if self.is_anonymous:
            return "anonymous"
        named = self.username and not self.identity_token and not self.registry_token
        who = f"user {self.username}" if named else "token"
        return f"{who} ({self.origin})" if self.origin else who

    def same_secret(self, other: Credential) -> bool:
        """True when both show the same thing to a registry."""
        return (self.username, self.password, self.identity_token, self.registry_token) == (
            other.username,
            other.password,
            other.identity_token,
            other.registry_token,
        )

    def __repr__(self) -> str:
        return f"Credential({self.identity})"


ANONYMOUS = Credential()
