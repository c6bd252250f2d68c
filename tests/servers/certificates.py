"""An authority of our own and a server certificate from it, for loopback."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    ca: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    server = authority.issue_cert("localhost", "127.0.0.1", "::1", key_type=trustme.KeyType.ECDSA)
    client = authority.issue_cert("client@tests.example", key_type=trustme.KeyType.ECDSA)
    found = Certificates(
        folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "client.pem", folder / "client.key"
    )
    authority.cert_pem.write_to_path(found.ca)
    server.private_key_pem.write_to_path(found.key)
    found.certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    client.private_key_pem.write_to_path(found.client_key)
    found.client_certificate.write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))
    return found
