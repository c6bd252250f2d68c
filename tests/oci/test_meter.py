from __future__ import annotations

from oci.meter import Meter


def test_a_receipt_as_a_document() -> None:
    meter = Meter()
    meter.request("r.example", "GET blob")
    meter.request("r.example", "GET blob")
    meter.request("a.example", "HEAD manifest")
    meter.identity("source r.example", "anonymous")

    body = meter.receipt().to_dict()
    assert list(body["requests"]) == ["a.example", "r.example"]
    assert body["requests"]["r.example"] == {"GET blob": 2}
    assert body["identities"] == {"source r.example": "anonymous"}
    assert meter.receipt().total_requests == 3
