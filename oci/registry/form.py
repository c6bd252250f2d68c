"""The pydantic model of RegistryOptions, for mirrors.yaml and the forms until both are derived from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from oci.registry.options import RegistryOptions


class RegistryForm(BaseModel):
    """How the registries of one side are reached."""

    model_config = ConfigDict(extra="forbid", title="Registry options", hide_input_in_errors=True)

    anonymous: bool = Field(
        default=False,
        title="Anonymous",
        description="Without the docker config of the worker. Blocks and IMGPKG variables are used nevertheless.",
    )
    insecure: bool = Field(
        default=False,
        title="Allow plain http",
        description="Talk http to a registry that has no TLS. Always allowed for loopback addresses.",
    )
    verify_tls: bool = Field(
        default=True, title="Verify TLS certificates", description="Switch off for a test registry only."
    )
    ca_files: list[str] = Field(
        default=[],
        title="CA files",
        description="PEM files on the worker with certificate authorities to trust besides the system's.",
        examples=[["/etc/ssl/corp-ca.pem"]],
        max_length=16,
    )
    client_certificate: str = Field(
        default="", title="Client certificate", description="PEM file on the worker, for registries that ask for one."
    )
    client_key: str = Field(
        default="", title="Client key", description="PEM file on the worker with the certificate's key."
    )
    proxy: str = Field(
        default="",
        title="Proxy",
        description="HOST:PORT after http://, without a login. Empty: the worker's proxy environment.",
        examples=["http://proxy.corp.example:3128"],
        pattern=r"^(https?://[^@\s]+)?$",
    )
    http2: bool = Field(default=False, title="HTTP/2", description="Slower for blobs; for registries that require it.")
    requests_per_second: float = Field(
        default=0.0, title="Requests per second", description="0 is as many as the registry takes.", ge=0, le=10_000
    )
    quota_reserve: int = Field(
        default=0,
        title="Docker Hub reserve",
        description="Stop before fewer pulls than this are left in the quota; 0 uses them up.",
        ge=0,
        le=100_000,
    )
    allow_private_redirects: bool = Field(
        default=False,
        title="Allow redirects to private addresses",
        description="For a registry on a public address that keeps its blobs inside your network.",
    )
    retries: int = Field(
        default=5, title="Retries of a request", description="Before it counts as failed.", ge=0, le=50
    )

    @field_validator("proxy", mode="before")
    @classmethod
    def _without_login(cls, proxy: object) -> object:
        if "@" in str(proxy):
            raise ValueError("a proxy with a login would be stored in clear: set HTTPS_PROXY on the worker instead")
        return proxy

    def settings(self, concurrency: int) -> RegistryOptions:
        return RegistryOptions(
            anonymous=self.anonymous,
            ca_files=tuple(self.ca_files),
            client_certificate=self.client_certificate,
            client_key=self.client_key,
            verify_tls=self.verify_tls,
            insecure=self.insecure,
            proxy=self.proxy,
            http2=self.http2,
            concurrency=concurrency,
            requests_per_second=self.requests_per_second,
            quota_reserve=self.quota_reserve,
            allow_private_redirects=self.allow_private_redirects,
            retries=self.retries,
        )
