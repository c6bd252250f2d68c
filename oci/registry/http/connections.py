"""Connecting to a registry: which proxy, which authorities, which certificate of ours."""

from __future__ import annotations

import importlib.util
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.request import getproxies, proxy_bypass

import httpcore

from oci.errors import InvalidInput
from oci.registry.http.address_policy import host_of, is_loopback
from oci.registry.http.wire import Wire
from oci.registry.settings import RegistrySettings

NO_COOKIES = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
"""Takes no cookie from anyone: Harbor's CSRF guard refuses a PUT that carries its session cookie."""


def connected(registry: str, settings: RegistrySettings, side: str) -> Wire:
    if settings.http2 and importlib.util.find_spec("h2") is None:
        raise InvalidInput(f"{side} {registry}: HTTP/2 needs the package h2", hint="pip install 'transship[http2]'")
    proxy = settings.proxy or environment_proxy(host_of(registry))
    return Wire(
        context=_tls(registry, settings, side),
        proxy=proxy,
        http2=settings.http2,
        connections=settings.concurrency + 1,
    )


def environment_proxy(host: str) -> str:
    """HTTPS_PROXY, ALL_PROXY and NO_PROXY; never for loopback."""
    if is_loopback(host) or proxy_bypass(host):
        return ""
    proxies = getproxies()
    return proxies.get("https") or proxies.get("all") or ""


def _tls(registry: str, settings: RegistrySettings, side: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in settings.ca_files:
        try:
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(
                f"{side} {registry}: {path} can't be used as a CA file: {_why(error)}", hint="name a readable PEM file"
            ) from error
    if settings.client_certificate:
        try:
            context.load_cert_chain(settings.client_certificate, settings.client_key or None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(
                f"{side} {registry}: {settings.client_certificate} can't be used as a client certificate: {error}",
                hint="name PEM files of a certificate and its key, without a passphrase",
            ) from error
    return context


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it has no certificate" if "NO_CERTIFICATE" in str(error) else str(error.reason)
    return (error.strerror or str(error)).lower()


def speaks_no_tls(error: BaseException | None) -> bool:
    """Was it a server that answered our TLS greeting with something else, or none at the TLS port at all? A
    certificate that isn't trusted is neither."""
    if not isinstance(error, httpcore.ConnectError | httpcore.ReadError | httpcore.RemoteProtocolError):
        return False
    text = str(error)
    return "CERTIFICATE" not in text and any(
        sign in text.upper()
        for sign in ("WRONG_VERSION", "RECORD", "UNEXPECTED_EOF", "EOF OCCURRED", "REFUSED", "HTTP_REQUEST")
    )
