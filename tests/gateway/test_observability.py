"""What the process itself measures and writes."""

from typing import Any

import pytest
from prometheus_client import generate_latest

from gateway.observability import Metrics, ObserveRequests

Message = dict[str, Any]


def scope(path_template: str | None = None, method: str = "GET") -> dict[str, Any]:
    known = {} if path_template is None else {"path_template": path_template}
    return {"type": "http", "method": method, "path": "/x", "state": {}, **known}


async def observe(metrics: Metrics, asked: dict[str, Any], *, status: int = 200) -> list[Message]:
    """What leaves the middleware around an application that answers with `status`."""
    sent: list[Message] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await ObserveRequests(app, metrics=metrics)(asked, receive, send)  # type: ignore[arg-type]
    return sent


async def test_every_answer_carries_its_request_id() -> None:
    asked = scope("/v1/jobs")
    start, _ = await observe(Metrics(), asked)
    assert (b"x-request-id", asked["state"]["request_id"].encode()) in start["headers"]
    assert (b"a", b"b") in start["headers"]


async def test_requests_are_counted_by_route_method_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        await observe(metrics, scope("/v1/jobs"), status=status)
    text = generate_latest(metrics.registry).decode()
    labels = 'method="GET",route="/v1/jobs",status='
    assert f'antiphon_http_request_seconds_count{{{labels}"200"}} 2.0' in text
    assert f'antiphon_http_request_seconds_count{{{labels}"404"}} 1.0' in text


async def test_what_has_no_route_has_one_label_whatever_its_method() -> None:
    metrics = Metrics()
    for number in range(50):
        await observe(metrics, scope(method=f"M{number}"), status=404)
    text = generate_latest(metrics.registry).decode()
    assert text.count("antiphon_http_request_seconds_count{") == 1
    assert 'method="any",route="unmatched",status="404"} 50.0' in text


async def test_a_request_that_dies_counts_as_500() -> None:
    metrics = Metrics()

    async def app(*_: Any) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await ObserveRequests(app, metrics=metrics)(scope("/x"), None, None)  # type: ignore[arg-type]
    assert 'route="/x",status="500"} 1.0' in generate_latest(metrics.registry).decode()


async def test_what_is_no_http_passes() -> None:
    seen: list[str] = []

    async def app(asked: Any, *_: Any) -> None:
        seen.append(asked["type"])

    await ObserveRequests(app, metrics=Metrics())({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_admission_is_measured_by_batch() -> None:
    metrics = Metrics()
    metrics.observe_admission(3, 0.004)
    text = generate_latest(metrics.registry).decode()
    assert "antiphon_admit_batch_size_sum 3.0" in text
    assert 'antiphon_admit_seconds_bucket{le="0.005"} 1.0' in text
