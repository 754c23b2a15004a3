import errno
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from gateway.storage import AudioStore, ObjectMissing, StoreUnavailable

KEY = "0123abcd/89ef/0.flac"
BUCKET = "songs"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real HTTP server that speaks S3, on a free loopback port."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        endpoint = ""
        while not endpoint:
            line = process.stderr.readline()
            assert line, "moto_server ended"
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            endpoint = found[0] if found else ""
        reader = threading.Thread(target=process.stderr.read)
        reader.start()
        httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
        yield endpoint
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An operator's environment, but for the endpoint."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return monkeypatch


@pytest.fixture
def folder(tmp_path: Path) -> AudioStore:
    return AudioStore((tmp_path / "deep" / "audio files").as_uri())


@pytest.fixture
def bucket(aws: pytest.MonkeyPatch, s3_endpoint: str, tmp_path: Path) -> AudioStore:
    aws.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    return AudioStore(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> AudioStore:
    return request.getfixturevalue(request.param)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Long enough for an upload in several parts."""
    path = tmp_path / "made.flac"
    path.write_bytes(os.urandom(11_000_000))
    return path


def new_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def read(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_a_file_comes_back_whole_and_in_parts(store: AudioStore, song: Path) -> None:
    data = bytes_of(song)
    put = await store.put_file(KEY, song, "audio/flac")
    assert put.size_bytes == len(data)
    assert await store.head(KEY) == put
    assert await read(await store.open(KEY)) == data
    assert await read(await store.open(KEY, start=5, length=7_000_000)) == data[5:7_000_005]
    assert await read(await store.open(KEY, start=len(data) - 3)) == data[-3:]
    assert await read(await store.open(KEY, start=8, length=0)) == b""


async def test_an_empty_file_is_an_object_too(store: AudioStore, tmp_path: Path) -> None:
    empty = new_file(tmp_path / "empty", b"")
    assert (await store.put_file(KEY, empty, "audio/wav")).size_bytes == 0
    assert await read(await store.open(KEY, start=0, length=0)) == b""


async def test_new_bytes_have_a_new_tag(store: AudioStore, song: Path) -> None:
    first = await store.put_file(KEY, song, "audio/flac")
    new_file(song, b"other")
    second = await store.put_file(KEY, song, "audio/flac")
    assert first.etag != second.etag
    assert re.fullmatch(r'"[0-9a-f]{32}"', second.etag)
    assert await read(await store.open(KEY)) == b"other"


async def test_what_is_not_there_is_missing(store: AudioStore) -> None:
    with pytest.raises(ObjectMissing):
        await store.head(KEY)
    with pytest.raises(ObjectMissing):
        await store.open(KEY)
    with pytest.raises(ObjectMissing):
        await store.open(KEY, start=0, length=0)


async def test_deleting_twice_is_deleting_once(store: AudioStore, song: Path) -> None:
    await store.put_file(KEY, song, "audio/flac")
    await store.delete(KEY)
    await store.delete(KEY)
    with pytest.raises(ObjectMissing):
        await store.head(KEY)


async def test_deleting_a_folder_spares_its_neighbours(store: AudioStore, song: Path) -> None:
    inside = ["deletion/job/1-0.flac", "deletion/job/2-0.flac", "deletion/job/2-0.mp3"]
    neighbour = "deletion/job2/1-0.flac"
    for key in (*inside, neighbour):
        await store.put_file(key, song, "audio/flac")
    assert await store.delete_below("deletion/job") == len(inside)
    for key in inside:
        with pytest.raises(ObjectMissing):
            await store.head(key)
    assert (await store.head(neighbour)).size_bytes == song.stat().st_size  # noqa: ASYNC240 - a stat
    assert await store.delete_below("deletion/job") == 0


async def test_a_file_that_was_never_made_is_not_put(store: AudioStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await store.put_file(KEY, tmp_path / "none", "audio/flac")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        "a/.b",
        ".",
        "A/b",
        "a b",
        "a%2e",
        "a\\b",
        "a\n",
        "é",
        "a" * 513,
    ],
)
async def test_a_key_outside_the_alphabet_is_refused(folder: AudioStore, song: Path, key: str) -> None:
    for operation in (folder.head(key), folder.open(key), folder.delete(key)):
        with pytest.raises(ValueError, match="no storage key"):
            await operation
    with pytest.raises(ValueError, match="no storage key"):
        await folder.put_file(key, song, "audio/flac")
    with pytest.raises(ValueError, match="no storage key"):
        await folder.presign(key, expires_seconds=60)


async def test_a_working_store_passes_its_probe_and_keeps_nothing_of_it(
    store: AudioStore, tmp_path: Path
) -> None:
    await store.probe()
    assert not files_in(tmp_path)


async def test_a_folder_keeps_no_empty_job_folders(folder: AudioStore, song: Path, tmp_path: Path) -> None:
    await folder.put_file(KEY, song, "audio/flac")
    await folder.delete(KEY)
    assert not list((tmp_path / "deep" / "audio files").iterdir())


async def test_a_folder_signs_nothing(folder: AudioStore) -> None:
    assert await folder.presign(KEY, expires_seconds=60) is None


async def test_a_local_file_is_forced_to_disk_with_each_folder_that_names_it(
    folder: AudioStore, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    await folder.put_file(KEY, song, "audio/flac")
    assert synced == ["0.flac", "89ef", "0123abcd", "audio files"]


async def test_a_full_disk_makes_the_store_unavailable_and_leaves_no_object(
    folder: AudioStore, song: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StoreUnavailable, match=os.strerror(errno.EFBIG)):
            await folder.put_file(KEY, song, "audio/flac")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(ObjectMissing):
        await folder.head(KEY)


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        AudioStore((tmp_path / "file" / "audio").as_uri())


async def test_a_presigned_url_gives_the_bytes_their_type_and_their_name(
    bucket: AudioStore, song: Path
) -> None:
    await bucket.put_file(KEY, song, "audio/flac", disposition='attachment; filename="a.flac"')
    url = await bucket.presign(KEY, expires_seconds=60)
    head = await bucket.presign(KEY, expires_seconds=60, method="HEAD")
    assert url is not None
    assert head is not None
    async with httpx.AsyncClient() as client:
        whole = await client.get(url)
        part = await client.get(url, headers={"range": "bytes=1-4"})
        empty = await client.head(head)
    assert (whole.status_code, whole.content) == (200, bytes_of(song))
    assert whole.headers["content-type"] == "audio/flac"
    assert whole.headers["content-disposition"] == 'attachment; filename="a.flac"'
    assert (part.status_code, part.content) == (206, bytes_of(song)[1:5])
    assert (empty.status_code, empty.content) == (200, b"")


async def test_a_bucket_that_does_not_exist_is_no_working_store(
    aws: pytest.MonkeyPatch, s3_endpoint: str
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    with pytest.raises((StoreUnavailable, ObjectMissing)):
        await AudioStore("s3://no-such-bucket/x").probe()


async def test_a_store_that_is_down_is_unavailable(aws: pytest.MonkeyPatch, song: Path) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = AudioStore(f"s3://{BUCKET}/x")
    with pytest.raises(StoreUnavailable):
        await store.put_file(KEY, song, "audio/flac")
    with pytest.raises(StoreUnavailable):
        await store.head(KEY)


def test_a_url_without_a_bucket_is_refused(aws: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    with pytest.raises(StoreUnavailable):
        AudioStore("s3://")
