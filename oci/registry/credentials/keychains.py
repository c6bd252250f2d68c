"""The places where logins are looked for, in their order, and those of them that are no file: IMGPKG_USERNAME and its
like, the IMGPKG_REGISTRY_* sets, and the logins that clouds give for their registries: Amazon's through boto3, Azure's
through azure-identity, Google's through google-auth or gcloud, GitHub's by its token. Which clouds are asked is said by
IMGPKG_ACTIVE_KEYCHAINS, or IMGPKG_ENABLE_IAAS_AUTH for all of them."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from oci.descriptor import parse_json
from oci.errors import InvalidInput, Unauthorized
from oci.meter import unheard
from oci.registry.credentials.credential import ANONYMOUS, Credential, Credentials, CredentialSource, Fixed, Memo
from oci.registry.http.origin import canonical_host, split_pattern

PREFIX = "IMGPKG_REGISTRY_"
_FIELDS = ("HOSTNAME", "USERNAME", "PASSWORD", "IDENTITY_TOKEN", "REGISTRY_TOKEN")
_VARIABLE = re.compile(rf"{PREFIX}({'|'.join(_FIELDS)})(?:_(.+))?")
_FOREIGN = frozenset({f"{PREFIX}AZURE_CR_CONFIG"})


def default_credentials(
    *,
    side: str = "",
    explicit: Credential | None = None,
    flags: Mapping[str, str] | None = None,
    anonymous: bool = False,
    hosts: Collection[str] | None = None,
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = unheard,
) -> Credentials:
    """As in imgpkg: the IMGPKG_REGISTRY_* sets; cloud keychains that are switched on; the login for every registry that
    `flags`, or the TRANSSHIP_SOURCE_*, TRANSSHIP_DESTINATION_* or IMGPKG_* variables name; without such a login, the
    docker and podman configuration with its helpers. What is for a host comes before what is for all of them.

    `explicit` is a login for this side alone (`side` is "source", "destination" or empty) and comes before all.
    `hosts` are the registries that the caller named: `explicit`, flags and the variables that name no host are sent to
    these alone, never to a registry that only a lock, a bundle or a layer's `urls` names. None stands for all.
    `anonymous`, or IMGPKG_ANON, leaves out the configuration files. Raises InvalidInput for a configuration that can't
    be read; `warn` gets a line for each variable that is ignored.
    """
    # Imported here, so that a program with a login of its own doesn't load it.
    from oci.registry.credentials.config_files import ConfigFiles  # noqa: PLC0415

    environ = os.environ if environ is None else environ
    sources: list[CredentialSource] = [Fixed(explicit, hosts)] if explicit is not None else []
    sources += [RegistrySets(environ, warn), *active_keychains(environ, warn)]
    general = general_identity(environ, side, flags or {})
    if general is not None and not general.is_anonymous:
        sources.append(Fixed(general, hosts))
    if not anonymous and (general is None or not general.is_anonymous):
        sources.append(ConfigFiles(environ))
    return Credentials(sources)


class RegistrySets:
    """The `IMGPKG_REGISTRY_HOSTNAME[_N]` sets. A set that matches ends the search, even when it has no credentials."""

    def __init__(self, environ: Mapping[str, str], warn: Callable[[str], None]) -> None:
        sets: dict[str, dict[str, str]] = {}
        for name, value in environ.items():
            match = _VARIABLE.fullmatch(name)
            if match:
                sets.setdefault(match.group(2) or "", {})[match.group(1)] = value
            elif name.startswith(PREFIX) and name not in _FOREIGN:
                warn(f"unknown environment variable {name} is ignored: known are {PREFIX}{{{','.join(_FIELDS)}}}[_N]")
        entries = [
            (
                fields["HOSTNAME"],
                Credential(
                    fields.get("USERNAME", ""),
                    fields.get("PASSWORD", ""),
                    fields.get("IDENTITY_TOKEN", ""),
                    fields.get("REGISTRY_TOKEN", ""),
                    origin=f"{PREFIX}HOSTNAME{'_' if suffix else ''}{suffix}",
                ),
            )
            for suffix, fields in sets.items()
            if fields.get("HOSTNAME")
        ]
        self._entries = sorted(entries, key=lambda entry: entry[0], reverse=True)

    def find(self, registry: str, repository: str) -> Credential | None:
        for pattern, credential in self._entries:
            if _matches(pattern, registry, repository):
                return ANONYMOUS if credential.is_anonymous else credential
        return None


def _matches(pattern: str, registry: str, repository: str) -> bool:
    """Host labels one by one, with globs; the same port or none on both sides; the path up to a segment's end (imgpkg
    would take `reg/app` for `reg/application` too)."""
    host, path = split_pattern(pattern)
    host_pattern, _, port = host.partition(":")
    name, _, registry_port = canonical_host(registry).partition(":")
    globs, labels = host_pattern.split("."), name.split(".")
    return (
        port == registry_port
        and len(globs) == len(labels)
        and all(map(fnmatchcase, labels, globs))
        and (not path or repository == path or repository.startswith(f"{path}/"))
    )


def general_identity(environ: Mapping[str, str], side: str, flags: Mapping[str, str]) -> Credential | None:
    """The one identity for every registry of a side: what flags say (`username`, `password`, `token`), each filled up
    from its IMGPKG_* variable as in imgpkg, or what TRANSSHIP_SOURCE_*, TRANSSHIP_DESTINATION_* or IMGPKG_* say.
    ANONYMOUS for IMGPKG_ANON=true; None when nothing is said. A user name outranks a token, as in imgpkg."""
    flagged = flags.get("username") or flags.get("token")
    if side and not flagged:
        of_side = _named(environ, f"TRANSSHIP_{side.upper()}_", {})
        if of_side is not None:
            return of_side
    return _named(environ, "IMGPKG_", flags)


def _named(environ: Mapping[str, str], prefix: str, flags: Mapping[str, str]) -> Credential | None:
    def value(name: str) -> str:
        return flags.get(name) or environ.get(f"{prefix}{name.upper()}", "")

    def origin(name: str) -> str:
        return f"--registry-{name}" if flags.get(name) else f"{prefix}{name.upper()}"

    if value("username"):
        return Credential(value("username"), value("password"), origin=origin("username"))
    if value("token"):
        return Credential(registry_token=value("token"), origin=origin("token"))
    return ANONYMOUS if environ.get(f"{prefix}ANON") == "true" else None


_ECR_PRIVATE = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)"
)
"""`dkr.ecr` on IPv4, `dkr-ecr` on both stacks; the last line has the isolated partitions (AWS SDK, endpoints.json)."""


def amazon_login(registry: str, profile: str = "", role: str = "") -> Credential:
    """The token of a private registry, or of `public.ecr.aws`: it lives 12 hours and is for all repositories of an
    account. `profile` and `role` (an ARN to assume) replace what boto3 finds by itself. Raises Unauthorized."""
    import boto3  # noqa: PLC0415 - takes a quarter of a second, and only these hosts need it
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    private = _ECR_PRIVATE.fullmatch(registry)
    region = private["region"] if private else "us-east-1"
    try:
        session = boto3.Session(profile_name=profile or None, region_name=region)
        if role:
            keys = session.client("sts").assume_role(RoleArn=role, RoleSessionName="transship")["Credentials"]
            session = boto3.Session(
                aws_access_key_id=keys["AccessKeyId"],
                aws_secret_access_key=keys["SecretAccessKey"],
                aws_session_token=keys["SessionToken"],
                region_name=region,
            )
        client: Any = session.client("ecr" if private else "ecr-public", region_name=region)
        answer = client.get_authorization_token()
        data = answer["authorizationData"][0] if private else answer["authorizationData"]
        username, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        expires_at = data["expiresAt"].timestamp() - 300
    except (BotoCoreError, ClientError, LookupError, ValueError, AttributeError, TypeError) as error:
        hint = "check the AWS credentials of this process, and that they allow ecr:GetAuthorizationToken"
        raise _no_token("AWS", registry, str(error), hint) from error
    return Credential(username, password, origin="AWS", expires_at=expires_at)


_AZURE = {
    ".azurecr.io": ("login.microsoftonline.com", "https://management.azure.com/.default"),
    ".azurecr.cn": ("login.chinacloudapi.cn", "https://management.chinacloudapi.cn/.default"),
    ".azurecr.us": ("login.microsoftonline.us", "https://management.usgovcloudapi.net/.default"),
    ".azurecr.de": ("login.microsoftonline.de", "https://management.microsoftazure.de/.default"),
}
"""End of the registry's name: host of the login, and audience of the token (azure-identity, AzureAuthorityHosts)."""

_AZURE_HINT = "check the AZURE_* variables or the managed identity of this process"
_ACR_LIFETIME = 3 * 3600.0
"""Seconds that a refresh token of a registry lives (ACR), where it doesn't say so itself."""


def azure_login(registry: str) -> Credential:
    """An Azure AD token is exchanged for a refresh token of the registry. `mcr.microsoft.com` is public and needs
    none."""
    try:
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - an extra, and only these hosts need it
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(
            f"the keychain aks needs azure-identity for {registry}", hint="pip install 'transship[azure]'"
        ) from error
    import httpx  # noqa: PLC0415 - only these hosts need it here

    try:
        authority, audience = next(cloud for end, cloud in _AZURE.items() if registry.endswith(end))
        token = DefaultAzureCredential(authority=authority).get_token(audience).token
        form = {"grant_type": "access_token", "service": registry, "access_token": token}
        answer = httpx.post(f"https://{registry}/oauth2/exchange", data=form, timeout=30)
        refresh_token = answer.json().get("refresh_token") if answer.status_code == 200 else None
    except (AzureError, httpx.HTTPError, ValueError, AttributeError) as error:
        why = str(error) if isinstance(error, AzureError) else type(error).__name__
        raise _no_token("Azure", registry, why, _AZURE_HINT) from error
    if not isinstance(refresh_token, str):
        raise _no_token("Azure", registry, f"the exchange answered {answer.status_code}", _AZURE_HINT)
    return Credential("<token>", identity_token=refresh_token, origin="Azure", expires_at=_expiry(refresh_token) - 300)


def _expiry(token: str) -> float:
    """Seconds since the epoch: the `exp` of a JSON Web Token (RFC 7519, 4.1.4), else three hours from now."""
    try:
        claims = token.split(".")[1]
        return float(parse_json(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return time.time() + _ACR_LIFETIME


_GCLOUD_TIMEOUT = 30.0
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def google_login(registry: str) -> Credential:
    """The application default credentials, else those of gcloud."""
    try:
        return _application_default(registry)
    except (InvalidInput, Unauthorized):
        credential = _of_gcloud()
        if credential is None:
            raise
        return credential


def _application_default(registry: str) -> Credential:
    try:
        import google.auth  # noqa: PLC0415 - an extra, and only these hosts need it
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
        from google.auth.transport.requests import Request  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(
            f"the keychain gke needs google-auth for {registry}", hint="pip install 'transship[google]'"
        ) from error
    try:
        credentials, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
        credentials.refresh(Request())
    except GoogleAuthError as error:
        hint = "check the application default credentials of this process, or log in with gcloud"
        raise _no_token("Google", registry, str(error), hint) from error
    expires = credentials.expiry.timestamp() - 300 if credentials.expiry else 0.0
    return Credential("_token", str(credentials.token), origin="Google", expires_at=expires)


def _of_gcloud() -> Credential | None:
    """Returns None where gcloud isn't installed, or has no login."""
    import shutil  # noqa: PLC0415 - only these hosts need them
    import subprocess  # noqa: PLC0415

    program = shutil.which("gcloud")
    if program is None:
        return None
    command = [program, "config", "config-helper", "--force-auth-refresh", "--format=json(credential)"]
    try:
        result = subprocess.run(command, capture_output=True, timeout=_GCLOUD_TIMEOUT, check=True)  # noqa: S603 - on the user's PATH
        credential = parse_json(result.stdout)["credential"]
        expires = datetime.fromisoformat(credential["token_expiry"]).timestamp() - 300
        return Credential("_token", str(credential["access_token"]), origin="gcloud", expires_at=expires)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None


def _no_token(cloud: str, registry: str, why: str, hint: str) -> Unauthorized:
    message = f"{cloud} gave no token for this registry: {why}"
    return Unauthorized(message, store=registry, operation="logging in", hint=hint)


def _github_login(environ: Mapping[str, str], registry: str) -> Credential | None:
    """GITHUB_TOKEN; the user is GITHUB_ACTOR, which the registry doesn't look at."""
    del registry
    token = environ.get("GITHUB_TOKEN", "")
    return Credential(environ.get("GITHUB_ACTOR") or "unset", token, origin="GITHUB_TOKEN") if token else None


VARIABLE = "IMGPKG_ACTIVE_KEYCHAINS"
_ALL = "IMGPKG_ENABLE_IAAS_AUTH"
COVERS: Mapping[str, Callable[[str], bool]] = {
    "gke": lambda host: host == "gcr.io" or host.endswith((".gcr.io", ".pkg.dev", ".google.com")),
    "ecr": lambda host: host == "public.ecr.aws" or _ECR_PRIVATE.fullmatch(host) is not None,
    "aks": lambda host: host.endswith(tuple(_AZURE)),
    "github": lambda host: host == "ghcr.io",
}
"""Whether a keychain has the logins of a registry, by its canonical host."""

_logins = Memo()


class Keychain:
    """A cloud's login is for a whole registry, and slow to get: each is fetched once in a process, for all repositories
    and both sides, until it expires or is refused."""

    def __init__(
        self, name: str, fetch: Callable[[str], Credential | None], environ: Mapping[str, str], identity: str = ""
    ) -> None:
        """`identity` tells logins of one cloud apart."""
        self._name = name
        self._fetch = fetch
        self._key = name, identity, frozenset(environ.items())

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        host = canonical_host(registry)
        return _logins.get((host, *self._key), lambda: self._fetch(host)) if COVERS[self._name](host) else None

    def renew(self, registry: str, repository: str, refused: Credential) -> None:
        del repository
        _logins.forget((canonical_host(registry), *self._key), refused)


def active_keychains(environ: Mapping[str, str], warn: Callable[[str], None]) -> list[Keychain]:
    """In the order they are listed. Raises InvalidInput for an unknown name, with imgpkg's sentence."""
    if _ALL in environ:
        warn(f"{_ALL} is deprecated: name the keychains in {VARIABLE}={','.join(COVERS)}")
    listed = [name.strip() for name in environ.get(VARIABLE, "").split(",") if name.strip()]
    if environ.get(_ALL) == "true":
        listed = list(COVERS)
    unknown = [name for name in listed if name not in COVERS]
    if unknown:
        raise InvalidInput(
            f"Unable to load keychain for {unknown[0]}, available keychains [aks, ecr, gke, github]",
            hint=f"correct the variable {VARIABLE}",
        )
    fetch: dict[str, Callable[[str], Credential | None]] = {
        "gke": google_login,
        "ecr": amazon_login,
        "aks": azure_login,
        "github": partial(_github_login, environ),
    }
    return [Keychain(name, fetch[name], environ) for name in dict.fromkeys(listed)]


def amazon(profile: str, role: str) -> Keychain:
    """The login of a profile of the AWS config files, or of a role, whatever keychains are active."""
    fetch = partial(amazon_login, profile=profile, role=role)
    return Keychain("ecr", fetch, os.environ, f"{profile} {role}")


def advice(registry: str) -> str:
    """What to set for the keychain that has a registry's logins; empty for a registry of no cloud."""
    name = next((name for name, covers in COVERS.items() if covers(registry)), "")
    return f"{VARIABLE}={name} uses the login of its cloud" if name else ""
