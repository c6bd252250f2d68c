"""The big scenario: a bundle with a nested bundle and one of everything else, each in a repository of its own."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.content import (
    Content,
    artifact,
    bundle,
    helm_chart,
    image,
    index,
    push,
    signature,
    signature_tag,
)


@dataclass(frozen=True, slots=True)
class Shop:
    """References as pushed, and the contents behind them."""

    reference: str
    bundle: Content
    nested: Content
    web: Content
    tools: Content
    deep_tools: Content
    chart: Content
    database: Content
    signature: Content
    referrer: Content

    @property
    def listed(self) -> tuple[Content, ...]:
        return (self.nested, self.web, self.tools, self.deep_tools, self.chart, self.database)


def push_shop(url: str, prefix: str, *, seed: int = 1) -> Shop:
    """Pushes all of it under `prefix/...`; the bundle is `prefix/bundle:1.4.0`."""
    host = url.partition("://")[2]
    web = image(seed * 100 + 1, docker=True)
    tools = index([image(seed * 100 + 2), image(seed * 100 + 3)], ["linux/amd64", "linux/arm64"])
    deep_tools = index([index([image(seed * 100 + 4)], ["linux/amd64"]), image(seed * 100 + 5)])
    chart = helm_chart(seed * 100 + 6)
    database = image(seed * 100 + 7)
    nested = bundle([push(url, f"{prefix}/database", database)])
    sbom = artifact(seed * 100 + 8, subject=web)
    signed = signature(web)
    references = [
        push(url, f"{prefix}/nested", nested, "v1"),
        push(url, f"{prefix}/web", web, "v1"),
        push(url, f"{prefix}/tools", tools, "v1"),
        push(url, f"{prefix}/deep-tools", deep_tools, "v1"),
        push(url, f"{prefix}/chart", chart, "v1"),
    ]
    push(url, f"{prefix}/web", signed, signature_tag(web))
    push(url, f"{prefix}/web", sbom)
    fallback = index([sbom])
    body = fallback.raw.replace(b'"size"', b'"artifactType":"application/vnd.example.sbom","size"', 1)
    push(url, f"{prefix}/web", Content(fallback.media_type, body), f"sha256-{web.hex}")
    shop = bundle(references)
    push(url, f"{prefix}/bundle", shop, "1.4.0")
    return Shop(f"{host}/{prefix}/bundle:1.4.0", shop, nested, web, tools, deep_tools, chart, database, signed, sbom)
