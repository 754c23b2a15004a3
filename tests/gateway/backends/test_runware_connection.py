"""The connection to Runware: which protocol, how long, and how much of an answer."""

import asyncio
import ssl
from pathlib import Path

import pytest

from gateway.backends.base import BackendUnavailable, Reason, SubmitAmbiguous
from gateway.backends.remote.provider import Waiting
from gateway.backends.runware import Patience, Runware
from tests.gateway.backends.http2_server import http2_server
from tests.gateway.backends.runware_account import SOON, a_call, calling
from tests.gateway.files.web_server import page, web_server
from tests.gateway.outbound.certificates import certificates
from tests.providers.runware import Delay, running

REF = "3c45aa70-03e4-41dd-9239-21a7f0c8d971"
RUNNING = f'{{"data":[{{"taskUUID":"{REF}","status":"processing"}}]}}'.encode()
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Both = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture
def tls(tmp_path: Path) -> Both:
    return certificates(tmp_path, "127.0.0.1")


def over_tls(url: str, tls: ssl.SSLContext) -> Runware:
    return Runware(api_key="a key", base_url=f"{url}/v1", patience=SOON, tls=tls)


async def test_requests_share_one_connection_of_http_2(tls: Both) -> None:
    async with http2_server(lambda _: RUNNING, tls[0]) as server:
        runware = over_tls(server.url, tls[1])
        await runware.look([REF])
        seen = await asyncio.gather(*(runware.look([REF]) for _ in range(20)))
        await runware.close()
    assert seen == [{REF: Waiting()}] * 20
    assert (server.connections, server.paths) == (1, ["/v1"] * 21)


@pytest.mark.parametrize("how", ["reset", "goaway"])
async def test_a_stream_that_breaks_off_is_sent_again_and_then_asked_for(tls: Both, how: str) -> None:
    answers: list[bytes | str] = [how, how, RUNNING]
    async with http2_server(lambda _: answers.pop(0), tls[0]) as server:
        runware = over_tls(server.url, tls[1])
        with pytest.raises(SubmitAmbiguous):  # the answer is of another task
            await runware.send(a_call())
        assert (answers, len(server.paths)) == ([], 3)
        await runware.close()


async def test_a_certificate_that_nobody_vouches_for_is_not_talked_to(tls: Both, tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    async with http2_server(lambda _: RUNNING, tls[0]) as server:
        runware = over_tls(server.url, certificates(others, "127.0.0.1")[1])
        with pytest.raises(BackendUnavailable):
            await runware.send(a_call())
        await runware.close()
    assert server.paths == []


@pytest.mark.parametrize("after_accepting", [False, True])
async def test_a_vendor_that_is_too_slow_is_asked_again_with_the_same_task(*, after_accepting: bool) -> None:
    patience = Patience(connect=2, read=0.4, answer=5, pause=0.0)
    async with running() as vendor, calling(vendor.url, vendor.key, patience=patience) as runware:
        vendor.fail_next("audioInference", Delay(30, after_accepting=after_accepting))
        call = a_call()
        assert await runware.send(call) == call.ref
        assert vendor.tasks[call.ref or ""].accepted == 1


async def test_an_answer_that_never_ends_is_not_waited_for() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(b"1\r\n \r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    patience = Patience(connect=2, read=5, answer=0.2, pause=0.0)
    async with (
        web_server({"/v1": endless}) as server,
        calling(server.url("/v1"), patience=patience) as runware,
    ):
        with pytest.raises(BackendUnavailable) as caught:
            await runware.look([REF])
        assert caught.value.reason is Reason.OUTAGE
        assert len(server.heads) == 1


async def test_an_answer_in_crumbs_is_not_read_to_its_end() -> None:
    def chunked(size: int, count: int) -> bytes:
        return HEAD + (f"{size:x}\r\n{' ' * size}\r\n".encode() * count) + b'b\r\n{"data":[]}\r\n0\r\n\r\n'

    async with web_server({"/crumbs": chunked(1, 5_000), "/pieces": chunked(100, 1_000)}) as server:
        async with calling(server.url("/pieces")) as runware:
            assert await runware.look([REF]) == {}
        async with calling(server.url("/crumbs")) as runware:
            with pytest.raises(BackendUnavailable):
                await runware.look([REF])


async def test_a_packed_answer_is_never_unfolded() -> None:
    packed = page(b'{"data":[]}', content_encoding="gzip")
    async with web_server({"/v1": packed}) as server, calling(server.url("/v1")) as runware:
        with pytest.raises(BackendUnavailable):
            await runware.look([REF])
        assert all("accept-encoding: identity" in head.lower() for head in server.heads)


async def test_a_refusal_counts_by_its_status_however_its_body_ends() -> None:
    for rest in (b"", b"{", b"\xff" * 50):
        body = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-length: 100\r\n\r\n" + rest
        async with web_server({"/v1": body}) as server, calling(server.url("/v1")) as runware:
            with pytest.raises(BackendUnavailable) as caught:
                await runware.send(a_call())
        assert (caught.value.reason, caught.value.retry_after_seconds) == (Reason.RATE_LIMITED, 2.0)
        assert len(server.heads) == 1


async def test_a_date_to_come_again_at_is_understood_and_nonsense_is_not() -> None:
    dates = {"Wed, 21 Oct 2065 07:28:00 GMT": 3600.0, "Wed, 21 Oct 2015 07:28:00 GMT": 0.0, "soon": None,
             "nan": None, "1e999": None, "-5": 0.0, "": None}  # fmt: skip
    for date, seconds in dates.items():
        answer = page(b"", status="429 Too Many Requests", retry_after=date)
        async with web_server({"/v1": answer}) as server, calling(server.url("/v1")) as runware:
            with pytest.raises(BackendUnavailable) as caught:
                await runware.look([REF])
            assert (date, caught.value.retry_after_seconds) == (date, seconds)
