"""Writes a software bill of materials (CycloneDX 1.6, JSON) of the package, or with --image of the container image.

    python deployments/sbom.py > sbom.json

It is made from the lock that the image is installed from, so it names what is there to the byte: each component has the
hashes that its files must have, of which an installation takes one. The same lock gives the same document.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "deployments" / "requirements.lock"
DOCKERFILE = ROOT / "deployments" / "Dockerfile"

_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)(?: *; *([^\\\n]+?))? *\\?$", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
"""Of RFC 4122, for names that are URLs."""


def normal(name: str) -> str:
    """The one form of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> Iterator[dict[str, Any]]:
    """The components of a lock."""
    pins = list(_PIN.finditer(text))
    for pin, end in zip(pins, [*(pin.start() for pin in pins[1:]), len(text)], strict=True):
        name, version, marker = normal(pin.group(1)), pin.group(2), pin.group(3)
        purl = f"pkg:pypi/{name}@{version}"
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "hashes": [{"alg": "SHA-256", "content": one} for one in _HASH.findall(text[pin.end() : end])],
        }
        if marker:
            component["scope"] = "optional"
            component["properties"] = [{"name": "python:marker", "value": marker.strip()}]
        yield component


def base_image(text: str) -> dict[str, Any]:
    """The image that the last stage of a Dockerfile begins with."""
    name, tag, digest = re.findall(r"^FROM ([^\s:@]+):([^\s@]+)@(sha256:[0-9a-f]{64})", text, re.MULTILINE)[-1]
    short = name.rpartition("/")[2]
    purl = f"pkg:oci/{short}@{digest.replace(':', '%3A')}?tag={tag}"
    content = {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}
    return {"type": "container", "bom-ref": purl, "name": name, "version": tag, "purl": purl, "hashes": [content]}


def bill(*, image: bool) -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.findall(r'^__version__ = "([^"]+)"', (ROOT / "oci" / "__init__.py").read_text(), re.MULTILINE)[0]
    purl = f"pkg:pypi/{project['name']}@{version}"
    components = list(locked(LOCK.read_text()))
    direct = {normal(re.split(r"[\s<>=!~\[;]", one)[0]) for one in project["dependencies"]}
    needed = [one["bom-ref"] for one in components if one["name"] in direct]
    if image:
        base = base_image(DOCKERFILE.read_text())
        components.insert(0, base)
        needed.insert(0, base["bom-ref"])
    subject = {
        "type": "container" if image else "library",
        "bom-ref": f"{purl}#image" if image else purl,
        "name": project["name"],
        "version": version,
        "licenses": [{"license": {"id": project["license"]}}],
        **({} if image else {"purl": purl}),
    }
    body: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [{"ref": subject["bom-ref"], "dependsOn": needed}],
    }
    return {**body, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, json.dumps(body, sort_keys=True))}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", action="store_true", help="of the image of deployments/Dockerfile")
    json.dump(bill(image=parser.parse_args().image), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
