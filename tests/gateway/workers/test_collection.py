"""What providers made, fetched over real connections and decoded by the real decoder."""

import asyncio
import io
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import soundfile

from gateway.audio import Decoder, QualityFailed, QualityReason
from gateway.backends.base import Output, Recording, Rendered, RenderTask
from gateway.files.fetch import Fetcher
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.outbound import BadUrl, Caller, OutboundError
from gateway.settings import read_settings
from gateway.workers.collection import (
    DOWNLOAD_DELAYS,
    DOWNLOADS_AT_ONCE,
    FADE_SECONDS,
    LEAST_ORDERED_FRAMES,
    CollectFailed,
    Collector,
    fitted,
    open_collector,
    output_guard,
)
from tests.factories import until
from tests.gateway.files.web_server import WebServer, moved, page, web_server
from tests.scripted_backend import make_music

HERE = "http://127.0.0.1:{}"


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Bench(msgspec.Struct):
    collector: Collector
    scratch: Path
    waits: list[float]

    async def collect(self, task: RenderTask, *outputs: Output) -> tuple[Recording, ...]:
        async with self.collector.collected(task, Rendered(outputs=outputs)) as recordings:
            return recordings

    async def failure(self, *outputs: Output) -> str:
        with pytest.raises(CollectFailed) as raised:
            await self.collect(task_of(), *outputs)
        assert names_in(self.scratch) == []
        return str(raised.value)


def bench_of(scratch: Path, providers: Sequence[str], **more: Any) -> Bench:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    guard = output_guard(providers, allow_private_hosts=False)
    caller = Caller(guard, tls=httpx.create_ssl_context(verify=False, trust_env=False))
    collector = Collector(
        fetcher=Fetcher(caller, total_seconds=5),
        decoder=Decoder(concurrency=1),
        scratch=scratch,
        sleep=sleep,
        **more,
    )
    return Bench(collector, scratch, waits)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def task_of(seconds: float = 1, **more: Any) -> RenderTask:
    return RenderTask(
        job_id=uuid.uuid4(),
        organization_id=uuid.uuid4(),
        attempt=1,
        model="ace-step-v1.5",
        test=False,
        request=GenerationRequest(prompt="calm", frames=round(seconds * SAMPLE_RATE), seed=7, **more),
    )


def song(seconds: float = 1, *, rate: int = SAMPLE_RATE, channels: int = 2, kind: str = "FLAC") -> bytes:
    out = io.BytesIO()
    samples = make_music(round(seconds * SAMPLE_RATE), 7)[:channels, : round(seconds * rate)]
    soundfile.write(out, samples.T, rate, format=kind)
    return out.getvalue()


def output(server: WebServer, path: str = "/song", seed: int | None = 7) -> Output:
    return Output(url=server.url(path), seed=seed)


async def test_songs_come_in_their_order_at_48_khz_with_the_seeds_that_were_told(scratch: Path) -> None:
    answers = {
        "/a": page(song()),
        "/b": page(song(rate=44_100, channels=1)),
        "/c": page(song(kind="WAV")),
    }
    async with web_server(dict(answers)) as server:
        bench = bench_of(scratch, [server.url("/v1")])
        outputs = [output(server, "/a", 70), output(server, "/b", None), output(server, "/c", 90)]
        recordings = await bench.collect(task_of(n=3), *outputs)
    assert [recording.seed for recording in recordings] == [70, 8, 90]
    for recording in recordings:
        assert recording.samples.dtype == np.float32
        assert recording.samples.shape == (2, SAMPLE_RATE)
        assert recording.sample_rate == SAMPLE_RATE
        assert recording.deterministic is False
    assert np.abs(recordings[0].samples).max() > 0.1
    assert np.array_equal(recordings[1].samples[0], recordings[1].samples[1])
    assert names_in(scratch) == []


async def test_a_file_that_lags_behind_is_asked_for_again(scratch: Path) -> None:
    answers: dict[str, Any] = {}

    async def missing(writer: asyncio.StreamWriter) -> None:
        answers["/song"] = broken_off
        writer.write(page(b"not yet", status="404 Not Found"))

    async def broken_off(writer: asyncio.StreamWriter) -> None:
        answers["/song"] = page(song())
        writer.write(page(song())[:3000])

    answers["/song"] = missing
    async with web_server(answers) as server:
        bench = bench_of(scratch, [server.url("/v1")])
        (recording,) = await bench.collect(task_of(), output(server))
    assert recording.samples.shape[1] == SAMPLE_RATE
    assert bench.waits == list(DOWNLOAD_DELAYS[:2])


async def test_a_file_that_never_comes_is_given_up(scratch: Path) -> None:
    async with web_server({}) as server:
        bench = bench_of(scratch, [server.url("/v1")])
        assert await bench.failure(output(server)) == "what the provider made could not be fetched"
    assert bench.waits == list(DOWNLOAD_DELAYS)


@pytest.mark.parametrize(
    "body",
    [b"<html><body>502 Bad Gateway</body></html>", b"fLaC" + bytes(5000), b""],
    ids=["text", "broken", "empty"],
)
async def test_what_is_no_sound_is_told_in_words_that_name_no_address(scratch: Path, body: bytes) -> None:
    async with web_server({"/song": page(body)}) as server:
        message = await bench_of(scratch, [server.url("/v1")]).failure(output(server))
    assert message.startswith("what the provider made")
    assert "127.0.0.1" not in message


async def test_one_song_that_fails_ends_the_download_of_the_others(scratch: Path) -> None:
    async def never(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with web_server({"/text": page(b"no song"), "/hang": never}) as server:
        bench = bench_of(scratch, [server.url("/v1")])
        await bench.failure(output(server, "/hang"), output(server, "/text"))


async def test_only_the_provider_itself_may_be_inside(scratch: Path) -> None:
    async with web_server({"/song": page(song())}) as provider, web_server({"/song": page(song())}) as other:
        provider.answers["/moved"] = moved(other.url())
        provider.answers["/metadata"] = moved("http://169.254.169.254/latest/meta-data/")
        bench = bench_of(scratch, [provider.url("/v1")])
        for url in (other.url(), provider.url("/moved"), provider.url("/metadata")):
            assert await bench.failure(Output(url=url)) == "what the provider made could not be fetched"
        assert other.heads == []
        await bench.collect(task_of(), output(provider))


async def test_a_name_is_trusted_by_host_and_port_and_nothing_else() -> None:
    guard = output_guard(["https://music.internal:8443/v1"], allow_private_hosts=False)
    assert guard.parse("https://music.internal:8443/files/a").host == "music.internal"
    for url in ("https://music.internal/a", "https://other.internal:8443/a", "http://127.0.0.1:8443/a"):
        with pytest.raises(BadUrl):
            guard.parse(url)
    with pytest.raises(OutboundError):
        await guard.judge(httpx.URL("http://10.0.0.1:8080/a"))
    assert output_guard([], allow_private_hosts=True).parse("http://127.0.0.1:1/a").port == 1


async def test_one_song_at_a_time_is_in_memory_and_a_slow_download_keeps_none_waiting(scratch: Path) -> None:
    gate = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(page(song()))

    async with web_server({"/slow": slow, "/song": page(song())}) as server:
        bench = bench_of(scratch, [server.url("/v1")], at_once=1)
        held = bench.collector._turns
        fetching = asyncio.ensure_future(bench.collect(task_of(), output(server, "/slow")))
        async with bench.collector.collected(task_of(), Rendered(outputs=(output(server),))) as recordings:
            assert len(recordings) == 1
            assert held.locked()
            gate.set()
        assert len(await fetching) == 1
        assert not held.locked()


async def test_the_collector_of_an_installation_trusts_the_providers_that_it_has_keys_for(
    scratch: Path,
) -> None:
    async with web_server({"/song": page(song())}) as server:
        environ = {
            "ANTIPHON_SECRET_KEY": "s" * 64,
            "ANTIPHON_RUNWARE_BASE_URL": server.url("/v1"),
        }
        opened = [
            open_collector(read_settings(environ | more), scratch)
            for more in ({"ANTIPHON_RUNWARE_API_KEY": "key"}, {})
        ]
        trusting, strict = [Bench(collector, scratch, []) for collector in opened]
        assert len(await trusting.collect(task_of(), output(server))) == 1
        before = len(server.heads)
        strict.collector._sleep = lambda _: asyncio.sleep(0)
        await strict.failure(output(server))
        assert len(server.heads) == before


async def test_songs_that_are_not_there_yet_keep_no_other_from_being_fetched(scratch: Path) -> None:
    async with web_server({"/song": page(song())}) as server:
        bench = bench_of(scratch, [server.url("/v1")])
        later = asyncio.Event()
        bench.collector._sleep = lambda _: later.wait()
        late = [
            asyncio.ensure_future(bench.collect(task_of(), output(server, "/late")))
            for _ in range(DOWNLOADS_AT_ONCE)
        ]

        async def are_late() -> bool:
            return len(server.heads) >= DOWNLOADS_AT_ONCE

        await until(are_late, what="the downloads")
        async with asyncio.timeout(5):
            assert len(await bench.collect(task_of(), output(server))) == 1
        for task in late:
            task.cancel()
        await asyncio.wait(late)
    assert names_in(scratch) == []


def ones(seconds: float) -> Any:
    return np.ones((2, round(seconds * SAMPLE_RATE)), dtype=np.float32)


def test_what_is_longer_than_ordered_is_cut_with_a_fade() -> None:
    fade = round(FADE_SECONDS * SAMPLE_RATE)
    for ordered, came in ((60, 60.05), (60, 64), (12, 30), (29.95, 30)):
        frames = round(ordered * SAMPLE_RATE)
        cut = fitted(ones(came), frames)
        assert cut.shape == (2, frames)
        assert cut.base is None
        assert (cut[:, :-fade] == 1).all()
        assert (np.diff(cut[0, -fade:]) < 0).all()
        assert cut[0, -1] == 0


def test_what_is_as_long_as_ordered_or_a_little_shorter_is_left_alone() -> None:
    for came in (60, 58):
        samples = ones(came)
        assert fitted(samples, 60 * SAMPLE_RATE) is samples
    assert fitted(ones(3), 600 * SAMPLE_RATE, open_length=True).shape[1] == 3 * SAMPLE_RATE


@pytest.mark.parametrize(("ordered", "came"), [(60, 56), (60, 30), (60, 120), (10, 60), (10, 0.5)])
def test_a_song_of_another_length_is_not_what_was_ordered(ordered: float, came: float) -> None:
    with pytest.raises(QualityFailed) as raised:
        fitted(ones(came), round(ordered * SAMPLE_RATE))
    assert raised.value.reason is QualityReason.LENGTH
    assert LEAST_ORDERED_FRAMES == 30 * SAMPLE_RATE
