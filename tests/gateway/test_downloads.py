from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.di import Provide

from gateway.downloads import ByteRange, RangeUnsatisfiable, parse_range, router
from gateway.signed_urls import UrlSigner
from gateway.storage import AudioStore

KEY = "0a1b/2c3d/0.flac"
PATH = f"/audio/{KEY}"
DATA = bytes(range(256)) * 4_000
SIGNER = UrlSigner("a secret of at least thirty-two characters")


def signed(path: str = PATH, *, filename: str | None = None, minutes: float = 5) -> str:
    expires_at = datetime.now(UTC) + timedelta(minutes=minutes)
    return f"{path}?{SIGNER.sign(path, expires_at=expires_at, filename=filename)}"


def client_of(store: AudioStore) -> httpx.AsyncClient:
    app = Litestar(
        [router],
        dependencies={
            "store": Provide(lambda: store, sync_to_thread=False),
            "signer": Provide(lambda: SIGNER, sync_to_thread=False),
        },
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://antiphon.test")


@pytest.fixture
async def store(tmp_path: Path) -> AudioStore:
    store = AudioStore((tmp_path / "audio").as_uri())
    (tmp_path / "song").write_bytes(DATA)
    await store.put_file(KEY, tmp_path / "song", "audio/flac")
    return store


@pytest.fixture
async def client(store: AudioStore) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(store) as client:
        yield client


async def test_a_signed_url_gives_the_file(client: httpx.AsyncClient) -> None:
    answer = await client.get(signed())
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["content-type"] == "audio/flac"
    assert answer.headers["content-disposition"] == "inline"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["cache-control"] == "private"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_head_is_get_without_the_bytes(client: httpx.AsyncClient) -> None:
    url = signed(filename="Lied für Élise.flac")
    whole, head = await client.get(url), await client.head(url, headers={"range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(whole.headers)
    assert "filename*=UTF-8''Lied%20f%C3%BCr" in head.headers["content-disposition"]


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=5-1000", slice(5, 1001)),
        ("bytes=1000000-", slice(1_000_000, None)),
        ("bytes=-300", slice(-300, None)),
        ("Bytes=10-99999999999999999999", slice(10, None)),
    ],
)
async def test_a_range_gives_that_part(client: httpx.AsyncClient, header: str, part: slice) -> None:
    answer = await client.get(signed(), headers={"range": header})
    start, end, _ = part.indices(len(DATA))
    assert (answer.status_code, answer.content) == (206, DATA[part])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("header", ["bytes=1024000-", "bytes=1024000-1024001", "bytes=-0"])
async def test_a_range_past_the_end_is_416(client: httpx.AsyncClient, header: str) -> None:
    answer = await client.get(signed(), headers={"range": header})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(DATA)}")


@pytest.mark.parametrize(
    "header", ["bytes=", "bytes=-", "bytes=9-3", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", ""]
)
async def test_a_range_that_is_none_gives_the_file(client: httpx.AsyncClient, header: str) -> None:
    answer = await client.get(signed(), headers={"range": header})
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))


async def test_if_range_takes_the_exact_tag_only(client: httpx.AsyncClient) -> None:
    etag = (await client.head(signed())).headers["etag"]
    for condition, status in (
        (etag, 206),
        (f"W/{etag}", 200),
        ('"x"', 200),
        ("Sat, 01 Jan 2028 00:00:00 GMT", 200),
    ):
        answer = await client.get(signed(), headers={"range": "bytes=0-1", "if-range": condition})
        assert answer.status_code == status


async def test_who_has_it_already_gets_no_bytes(client: httpx.AsyncClient) -> None:
    etag = (await client.get(signed())).headers["etag"]
    for condition in (etag, f'"x", W/{etag}', "*"):
        answer = await client.get(signed(), headers={"if-none-match": condition})
        assert (answer.status_code, answer.content) == (304, b"")
    assert (await client.get(signed(), headers={"if-none-match": '"x"'})).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_expired_or_changed_url_is_forbidden(client: httpx.AsyncClient, method: str) -> None:
    other = signed().replace("/0a1b/", "/0a1c/")
    for url in (
        signed(minutes=-1),
        other,
        signed() + "0",
        PATH,
        PATH + "?expires=%ff",
        signed(PATH + "x").replace("x?", "?"),
    ):
        assert (await client.request(method, url)).status_code == 403


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_file_that_is_gone_is_404(client: httpx.AsyncClient, store: AudioStore, method: str) -> None:
    await store.delete(KEY)
    assert (await client.request(method, signed())).status_code == 404


async def test_no_other_method_is_served(client: httpx.AsyncClient) -> None:
    assert (await client.delete(signed())).status_code == 405


async def test_s3_serves_its_own_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    # Signing is arithmetic on credentials: no server is needed.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    async with client_of(AudioStore("s3://songs/live")) as client:
        answer, head = await client.get(signed()), await client.head(signed())
        forged = await client.get(signed() + "0")
    assert (answer.status_code, head.status_code, forged.status_code) == (302, 302, 403)
    assert answer.content == b""
    assert f"/songs/live/{KEY}?" in answer.headers["location"]
    assert "X-Amz-Signature=" in answer.headers["location"]
    assert answer.headers["location"] != head.headers["location"]
    assert answer.headers["cache-control"] == "no-store"


async def test_a_store_that_is_down_is_503(client: httpx.AsyncClient, tmp_path: Path) -> None:
    path = tmp_path / "audio" / KEY
    path.unlink()
    path.symlink_to(path)
    assert (await client.get(signed())).status_code == 503


@settings(deadline=None)
@given(
    header=st.text(max_size=40) | st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True),
    size=st.integers(0, 10**12),
)
def test_a_range_is_never_empty_nor_outside(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except RangeUnsatisfiable:
        return
    assert part is None or 0 <= part.start < part.end <= size


def test_an_empty_file_has_no_ranges() -> None:
    assert parse_range("bytes=-5", 0) is None
    with pytest.raises(RangeUnsatisfiable):
        parse_range("bytes=0-", 0)


def test_no_header_means_everything() -> None:
    assert parse_range(None, 10) is None
    assert parse_range("bytes=0-", 10) == ByteRange(0, 10)
