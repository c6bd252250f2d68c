"""A password file for docker-registry's Basic authentication."""

from __future__ import annotations

from pathlib import Path

# `user:password`, hashed once with bcrypt (cost 5): making one takes a library that nothing else needs.
USER = "user"
PASSWORD = "password"
_LINE = "user:$2b$05$fKedkC2UIMjwDiuH2dQFbeR1iH.7Pk3u7QOX4iqr4GLlG3H/7weHi\n"


def write_htpasswd(path: Path) -> Path:
    path.write_text(_LINE)
    return path
