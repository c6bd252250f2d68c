"""skopeo, as an independent reader of what we wrote."""

from __future__ import annotations

import shutil
import subprocess


def skopeo(*arguments: str) -> bytes:
    """Runs it without signature policy and without TLS verification; fails with what it said."""
    program = shutil.which("skopeo")
    if program is None:
        raise RuntimeError("skopeo is not installed: apt-get install skopeo")
    done = subprocess.run([program, "--insecure-policy", *arguments], capture_output=True, timeout=240, check=False)
    if done.returncode != 0:
        raise AssertionError(f"skopeo {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def raw_manifest(reference: str) -> bytes:
    """`HOST/REPOSITORY:TAG` or `...@DIGEST` in a plain http registry."""
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
