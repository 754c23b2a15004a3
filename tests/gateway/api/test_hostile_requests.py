"""Paths, queries, headers and raw bytes that nobody means well with."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.api.installation import Customer

BODY = json.dumps({"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5}).encode()
QUERIES = [
    f"{name}={value}"
    for name in ("status", "model", "cursor", "created[gte]", "limit", "created%5Bgte%5D", "unknown")
    for value in ("%00", "a%00b", "%ff%fe", "%ed%a0%80", "%F0%9F%8E%B5", "9" * 400, "9" * 5_000, "x" * 5_000)
] + [
    "created[gte]=0001-01-01T00:00:00%2B14:00",
    "created[gte]=9999-12-31T23:59:59-14:00",
    "created[gte]=99999999999999999999",
    "created[gte]=-1",
    "created[gte]=%D9%A3",
    "limit=NaN",
    "limit=1e3",
    "limit=-1",
    "limit=1&limit=x",
    "cursor=" + "0" * 32,
    "cursor=" + "_" * 32,
    "&&&===&",
    "%",
]


@pytest.mark.parametrize("query", QUERIES)
async def test_no_query_breaks_the_list(customer: Customer, query: str) -> None:
    answer = await customer.http.get(f"/v1/jobs?{query}", headers=customer.headers())
    assert answer.status_code in {200, 400}, answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "tail",
    [
        "%00",
        "a%00b" * 7,
        "%ff" * 32,
        "%F0%9F%8E%B5" * 8,
        "x" * 60_000,
        "..%2f..%2fetc%2fpasswd",
        "0" * 32,
        "+" * 32,
        "_" * 32,
        "{" * 36,
        "%D9%A3" * 32,
        "urn:uuid:" + "0" * 27,
        "null",
        "%20",
        ";a=b",
        "é",
    ],
)
async def test_no_path_breaks_the_server(customer: Customer, tail: str) -> None:
    for method, path in (
        ("GET", f"/v1/jobs/{tail}"),
        ("GET", f"/v1/jobs/{tail}?include=attempts"),
        ("DELETE", f"/v1/jobs/{tail}"),
        ("POST", f"/v1/jobs/{tail}/cancel"),
        ("GET", f"/v1/models/{tail}"),
        ("GET", f"/audio/{tail}"),
        ("GET", f"/docs/assets/{tail}"),
        ("GET", f"/{tail}"),
    ):
        answer = await customer.http.request(method, path, headers=customer.headers())
        assert answer.status_code in {400, 403, 404, 405}, (method, path, answer.text)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": b"Bearer \xff\xfe"},
        {"authorization": b"Bearer " + b"a" * 60_000},
        {"authorization": b"Bearer"},
        {"authorization": b"Basic YTpi"},
        {"authorization": "Bearer aph_live_é".encode()},
        {"x-api-key": b"\xe9"},
        {"x-api-key": b""},
    ],
)
async def test_no_key_breaks_the_server(customer: Customer, headers: dict[str, bytes]) -> None:
    answer = await customer.http.get("/v1/jobs", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] in {"invalid_api_key", "missing_api_key"}


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "[::1"},
        {"host": "a b"},
        {"host": "x:99999999"},
        {"host": "x:y"},
        {"host": "evil.example/path?"},
        {"host": ""},
        {"host": "é"},
        {"host": "@:@"},
        {"accept": "image/png"},
        {"accept": ";;q=x"},
        {"content-type": "application/json; charset=\x80"},
        {"cookie": '=;=;a="\\'},
        {"x-forwarded-for": "not an address, ::1"},
        {"x-forwarded-proto": "javascript"},
        {"content-encoding": "gzip"},
        {"expect": "something"},
        {"range": "bytes=0-0"},
        {"transfer-encoding": "identity"},
        {"accept-language": "x" * 30_000},
        {"if-none-match": "*"},
        {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-key": "x"},
        {f"x-{number}": "y" for number in range(1_000)},
    ],
    ids=lambda headers: next(iter(headers)) + str(len(headers)),
)
async def test_no_header_breaks_a_submit(customer: Customer, headers: dict[str, str]) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    status, body = await exchange(customer, request(customer, raw))
    jobs = await customer.count_jobs()
    if status == 202:
        assert jobs == 1
        assert json.loads(body)["poll_url"].startswith("/v1/jobs/")
    else:
        assert 400 <= status < 500, body
        assert jobs == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /v1/jobs\r\n\r\n",
        b"GET /v1/jobs HTTP/9.9\r\n\r\n",
        b"BREW /v1/jobs HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/jobs?a=\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nhost: x\r\na\x00: b\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nhost: x\r\n: b\r\n\r\n",
        b"POST /v1/audio/generations HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\nabcde",
        b"POST /v1/audio/generations HTTP/1.1\r\nhost: x\r\ncontent-length: five\r\n\r\nabcde",
        b"POST /v1/audio/generations HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\nabc",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabc",
        b"POST /v1/audio/generations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_bytes_that_are_no_request_are_refused(customer: Customer, raw: bytes) -> None:
    status, _ = await exchange(customer, raw)
    assert status == 0 or 400 <= status < 500
    assert (await customer.http.get("/healthz")).status_code == 200


async def test_a_body_that_ends_early_makes_no_job(customer: Customer) -> None:
    whole = request(customer, {})
    for kept in (len(whole) - 1, len(whole) - len(BODY), 20):
        await exchange(customer, whole[:kept], half_close=True)
    await asyncio.sleep(0.05)
    assert await customer.count_jobs() == 0


async def test_unknown_methods_do_not_multiply_the_metrics(customer: Customer) -> None:
    for method in ("PURGE", "PROPFIND", "MKCOL", "LOCK", "TRACE", "SUBSCRIBE"):
        for path in ("/v1/jobs", f"/v1/jobs/{method}", f"/nowhere/{method}"):
            answer = await customer.http.request(method, path)
            assert answer.status_code in {400, 404, 405}
    text = (await customer.http.get("/metrics")).text
    for method in ("PURGE", "PROPFIND", "MKCOL", "LOCK", "TRACE", "SUBSCRIBE"):
        assert method not in text


def request(customer: Customer, headers: dict[str, bytes]) -> bytes:
    """A good submit with these headers, whatever is in them."""
    lines = {
        "host": b"antiphon.test",
        "authorization": f"Bearer {customer.live_key}".encode(),
        "content-type": b"application/json",
        "content-length": str(len(BODY)).encode(),
    } | headers
    head = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in lines.items())
    return b"POST /v1/audio/generations HTTP/1.1\r\n" + head + b"\r\n" + BODY


async def exchange(customer: Customer, raw: bytes, *, half_close: bool = False) -> tuple[int, bytes]:
    """Status (0 if the connection was just closed or stays silent) and body of what comes back."""
    where: Any = urlsplit(str(customer.http.base_url))
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(raw)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(1):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if b"content-length" in line
                ),
                0,
            )
            return int(head.split()[1]), await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return 0, b""
    finally:
        writer.close()
