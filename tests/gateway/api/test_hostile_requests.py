"""Paths, queries, headers and raw bytes that nobody means well with."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.api.installation import Customer
from tests.raw_http import RawClient, connected

BODY = json.dumps({"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5}).encode()
QUERIES = [
    f"{name}={value}"
    for name in ("status", "model", "cursor", "created[gte]", "limit", "created%5Bgte%5D", "unknown")
    for value in ("%00", "a%00b", "%ff%fe", "%ed%a0%80", "%F0%9F%8E%B5", "9" * 400, "9" * 5_000, "x" * 5_000)
] + [
    "created[gte]=0001-01-01T00:00:00%2B14:00",
    "created[gte]=0001-01-01T00:00:00Z",
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
        "%c0%af" * 6,
        "%c0%80" * 6,
        "%ed%a0%80" * 4,
        "%f8%88%80%80%80",
        "%",
        "%2",
        "%zz",
        "%u0041",
        "%2500",
        "%2e%2e%2f" * 100,
        "a/" * 1_000,
        "%0d%0aset-cookie:%20a=b",
        "\N{RIGHT-TO-LEFT OVERRIDE}",
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


@pytest.mark.parametrize("fields", [{}, {"authorization": b"Bearer nonsense"}, {"expect": b"100-continue"}])
async def test_eleven_megabytes_are_refused_and_the_connection_goes_on(
    customer: Customer, fields: dict[str, bytes]
) -> None:
    body = BODY[:-1] + b', "user": "' + b"x" * 11_000_000 + b'"}'
    size, chunked = {"content-length": b"%d" % len(body)}, {"transfer-encoding": b"chunked"}
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (body[start : start + 1_000_000] for start in range(0, len(body), 1_000_000))
    )
    for more, sent in ((size, body), (chunked, chunks + b"0\r\n\r\n")):
        async with raw_client(customer) as client:
            await client.send(request(customer, fields | more, body=sent))
            status, headers, answer = await client.answer()
            if status == 100:
                status, headers, answer = await client.answer()
            assert status == (401 if "authorization" in fields else 413), answer[:500]
            assert headers["x-should-retry"] == "false"
            if "expect" in fields:
                assert (headers["connection"], await client.is_closed()) == ("close", True)
            else:
                await client.send(request(customer, {}, target="/v1/nothing"))
                assert await client.status() == 404
    assert await customer.count_jobs() == 0


async def test_a_length_that_lies_makes_no_second_request_of_the_rest(customer: Customer) -> None:
    hidden = request(customer, {}, method="DELETE", target="/v1/jobs/" + "0" * 32)
    async with raw_client(customer) as client:
        # Shorter than the body: the JSON is cut, and its rest is no HTTP.
        await client.send(request(customer, {"content-length": b"%d" % (len(BODY) - 5)}))
        assert [await client.status(), await client.status()] == [400, 400]
        assert await client.is_closed()
    async with raw_client(customer) as client:
        # Longer than the body: what follows belongs to it.
        length = b"%d" % (len(BODY) + len(hidden))
        await client.send(request(customer, {"content-length": length}, body=BODY + hidden))
        assert await client.status() == 400
        await client.send(request(customer, {}, method="GET", target="/healthz", body=b""))
        assert (await client.answer())[2] == b'{"status":"ok"}'
    assert await customer.count_jobs() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"transfer-encoding": b"chunked", "Content-Length": b"5"},
        {"transfer-encoding": b"chunked, chunked"},
        {"transfer-encoding": b"chunked, identity"},
        {"transfer-encoding": b"xchunked"},
        {"transfer-encoding": b"\x0bchunked"},
        {"transfer-encoding": b"gzip"},
        {"content-length": b"+5"},
        {"content-length": b"0x5"},
        {"content-length": b"5, 5"},
        {"content-length": b"5\r\ncontent-length: 6"},
        {"content-length": b"5\r\n transfer-encoding: chunked"},
        {"content-length ": b"5"},
        {"transfer-encoding ": b"chunked"},
        {"x": b"a\nb: c"},
        {"x": b"a\rb: c"},
        {"x": b"a\x00b"},
        {"": b"a"},
        {"a b": b"c"},
        {"a\tb": b"c"},
    ],
    ids=str,
)
async def test_two_readings_of_where_a_request_ends_are_refused(
    customer: Customer, fields: dict[str, bytes]
) -> None:
    lines = {"host": b"x", "authorization": f"Bearer {customer.live_key}".encode()} | fields
    head = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in lines.items())
    async with raw_client(customer) as client:
        await client.send(b"POST /v1/audio/generations HTTP/1.1\r\n" + head + b"\r\n")
        await client.send(b"0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await client.status() == 400
        assert await client.is_closed()
    assert await customer.count_jobs() == 0


async def test_garbage_behind_a_submit_is_answered_after_it(customer: Customer) -> None:
    async with raw_client(customer) as client:
        await client.send(request(customer, {}) + b"\x00\xff garbage\r\n\r\n" * 3)
        assert [await client.status(), await client.status()] == [202, 400]
        assert await client.is_closed()
    assert await customer.count_jobs() == 1


async def test_requests_sent_at_once_are_answered_in_their_order(customer: Customer) -> None:
    paths = ["/v1/balance", "/v1/nothing", "/v1/key", "/healthz"]
    reads = [request(customer, {}, method="GET", target=path, body=b"") for path in paths]
    async with raw_client(customer) as client:
        await client.send(request(customer, {}) + b"".join(reads) + request(customer, {}))
        assert [await client.status() for _ in range(6)] == [202, 200, 404, 200, 200, 202]
    assert await customer.count_jobs() == 2


async def test_old_http_gets_its_answer_and_the_end_of_the_connection(customer: Customer) -> None:
    async with raw_client(customer) as client:
        await client.send(request(customer, {}).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        status, headers, _ = await client.answer()
        assert (status, headers["connection"], await client.is_closed()) == (202, "close", True)
    async with raw_client(customer) as client:
        head = request(customer, {}, body=b"").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        await client.send(head.replace(b"content-length: 0\r\n", b"") + BODY)  # ends with the connection
        assert await client.status() == 400
    assert await customer.count_jobs() == 1


@pytest.mark.parametrize(
    ("target", "statuses"),
    [
        ("http://antiphon.test/v1/balance", {200}),
        ("http://somebody.else/v1/balance", {200}),
        ("HTTP://user:password@antiphon.test:99/v1/balance?x=http://y", {200}),
        ("https://antiphon.test", {400, 404}),
        ("ftp://antiphon.test/v1/balance", {200, 400}),
        ("antiphon.test:80", {400}),
        ("//antiphon.test/v1/balance", {404}),
        ("*", {404}),
        ("?x", {400, 404}),
        ("v1/balance", {400, 404}),
        ("/v1/balance#part", {200, 400}),
        ("/v1/balance?" + "x=1&" * 10_000, {200}),
        ("/v1/balance?" + "x" * 60_000, {200}),
        ("/" + "x" * 60_000, {404}),
        ("/v1/jobs/" + "%2f" * 20_000, {200}),
        ("/" + "x" * 100_000, {431}),
        ("/v1/balance?" + "x=1&" * 50_000, {431}),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
async def test_targets_of_every_form(customer: Customer, target: str, statuses: set[int]) -> None:
    async with raw_client(customer) as client:
        await client.send(request(customer, {}, method="GET", target=target, body=b""))
        assert await client.status() in statuses
    assert (await customer.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("count", [190, 5_000])
async def test_thousands_of_headers_are_refused(customer: Customer, count: int) -> None:
    many = {f"x-{number}": b"y" for number in range(count)}
    async with raw_client(customer) as client:
        await client.send(request(customer, many))
        assert await client.status() == (202 if count < 200 else 431)
    assert await customer.count_jobs() == (1 if count < 200 else 0)


async def test_a_header_that_comes_twice_breaks_nothing(customer: Customer) -> None:
    for name, first, second in (
        ("authorization", f"Bearer {customer.live_key}", "Bearer nonsense"),
        ("content-type", "application/json", "text/plain"),
        ("idempotency-key", "one", "two"),
        ("host", "here", "there"),
        ("prefer", "wait=0", "wait=x"),
    ):
        for one, two in ((first, second), (second, first)):
            async with raw_client(customer) as client:
                twice = {name: f"{one}\r\n{name}: {two}".encode()}
                await client.send(request(customer, twice))
                assert await client.status() in {202, 400, 401, 415}


async def test_unknown_methods_do_not_multiply_the_metrics(customer: Customer) -> None:
    for method in ("PURGE", "PROPFIND", "MKCOL", "LOCK", "TRACE", "SUBSCRIBE"):
        for path in ("/v1/jobs", f"/v1/jobs/{method}", f"/nowhere/{method}"):
            answer = await customer.http.request(method, path)
            assert answer.status_code in {400, 404, 405}
    text = (await customer.http.get("/metrics")).text
    for method in ("PURGE", "PROPFIND", "MKCOL", "LOCK", "TRACE", "SUBSCRIBE"):
        assert method not in text


def request(
    customer: Customer,
    headers: dict[str, bytes],
    *,
    method: str = "POST",
    target: str = "/v1/audio/generations",
    body: bytes = BODY,
) -> bytes:
    """A good submit with these headers, whatever is in them."""
    lines = {
        "host": b"antiphon.test",
        "authorization": f"Bearer {customer.live_key}".encode(),
        "content-type": b"application/json",
    } | headers
    if "transfer-encoding" not in lines:
        lines.setdefault("content-length", b"%d" % len(body))
    head = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n".encode() + head + b"\r\n" + body


def raw_client(customer: Customer) -> AbstractAsyncContextManager[RawClient]:
    """A connection of one's own."""
    where: Any = urlsplit(str(customer.http.base_url))
    return connected(where.hostname, where.port)


async def exchange(customer: Customer, raw: bytes, *, half_close: bool = False) -> tuple[int, bytes]:
    """Status (0 if the connection was just closed or stays silent) and body of what comes back."""
    async with raw_client(customer) as client:
        await client.send(raw)
        if half_close:
            client.writer.write_eof()
        try:
            async with asyncio.timeout(1):
                status, _, body = await client.answer()
                return status, body
        except TimeoutError:
            return 0, b""
