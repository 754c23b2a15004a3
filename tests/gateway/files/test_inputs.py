"""What workers get of a job's inputs, and how long uploads stay: as long as anybody may need them."""

import asyncio
import contextlib
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile

from gateway.audio import Decoder, InputTooLong, InputUnreadable
from gateway.audio.encode import Encoder
from gateway.auth.principal import Principal
from gateway.files.fetch import open_fetcher
from gateway.files.inputs import HANDED_AT_ONCE, AudioInputs, InputFile
from gateway.files.service import Files, Upload
from gateway.files.store import StoredFile
from gateway.generation import AudioInput, GenerationRequest
from gateway.ids import new_id
from gateway.storage import AudioStore, ObjectMissing
from gateway.workers.janitor import sweep_files
from tests.factories import Pool, until
from tests.gateway.files.web_server import page, web_server
from tests.workbench import Workbench

FRAMES = 9_600


@pytest.fixture
async def song(tmp_path: Path) -> Path:
    """24-bit FLAC."""
    samples = np.random.default_rng(2).uniform(-0.5, 0.5, (2, FRAMES)).astype(np.float32)
    made = await Encoder(concurrency=1).write_master(samples, sample_rate=48_000, folder=tmp_path)
    return made.path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def inputs(pool: Pool, store: AudioStore, scratch: Path) -> AudioInputs:
    return AudioInputs(
        pool=pool,
        store=store,
        scratch=scratch,
        fetcher=open_fetcher(allow_private_hosts=True),
        decoder=Decoder(concurrency=1),
    )


async def keep(pool: Pool, store: AudioStore, principal: Principal, song: Path) -> StoredFile:
    files = Files(pool=pool, store=store, scratch=song.parent, decoder=Decoder(concurrency=1))
    return await files.keep(principal, received(song))


def received(song: Path) -> Upload:
    return Upload(path=song, filename="a.flac", size_bytes=len(content(song)), sha256=b"?" * 32)


def content(path: Path) -> bytes:
    return path.read_bytes()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def job_with(bench: Workbench, principal: Principal, **inputs: AudioInput) -> None:
    """A queued job whose request names these."""
    job = await bench.submit(principal)
    request = msgspec.structs.replace(job.request, **inputs)
    await bench.pool.execute(
        "UPDATE job SET request = $2::jsonb WHERE id = $1", job.id, msgspec.json.encode(request).decode()
    )
    stored = await bench.pool.fetchval("SELECT request FROM job WHERE id = $1", job.id)
    assert msgspec.json.decode(stored, type=GenerationRequest) == request


async def there(store: AudioStore, key: str) -> bool:
    try:
        await store.head(key)
    except ObjectMissing:
        return False
    return True


async def test_a_file_and_a_url_give_the_same_samples_and_leave_nothing_behind(
    bench: Workbench, pool: Pool, store: AudioStore, song: Path, inputs: AudioInputs, scratch: Path
) -> None:
    principal = await bench.customer()
    kept = await keep(pool, store, principal, song)
    assert (kept.frames, kept.container, kept.size_bytes) == (FRAMES, "flac", len(content(song)))
    owner = {"organization_id": principal.organization_id, "project_id": None}
    uploaded = await inputs.samples(AudioInput(file_id=kept.id.hex, frames=FRAMES), **owner)
    async with web_server({"/song": page(content(song))}) as server:
        fetched = await inputs.samples(AudioInput(url=server.url()), **owner)
        with pytest.raises(InputUnreadable, match="status 404"):
            await inputs.samples(AudioInput(url=server.url("/none")), **owner)
    assert uploaded.shape == (2, FRAMES)
    assert np.array_equal(uploaded, fetched)
    assert names_in(scratch) == []


async def handed(inputs: AudioInputs, wanted: AudioInput, **owner: Any) -> InputFile:
    async with inputs.file(wanted, **owner) as file:
        return file


async def test_few_files_are_in_memory_at_once_and_a_slow_download_keeps_nobody_waiting(
    song: Path, inputs: AudioInputs, scratch: Path
) -> None:
    owner = {"organization_id": new_id(), "project_id": None}
    async with web_server({"/song": page(content(song))}) as server, contextlib.AsyncExitStack() as held:
        for _ in range(HANDED_AT_ONCE):
            await held.enter_async_context(inputs.file(AudioInput(url=server.url()), **owner))
        waiting = asyncio.ensure_future(handed(inputs, AudioInput(url=server.url()), **owner))

        async def is_fetched() -> bool:
            return len(names_in(scratch)) > HANDED_AT_ONCE

        await until(is_fetched, what="the file on the disk")
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await held.aclose()
        assert (await waiting).content == content(song)
    assert names_in(scratch) == []


async def test_a_file_is_handed_over_as_it_came(
    bench: Workbench, pool: Pool, store: AudioStore, song: Path, inputs: AudioInputs, scratch: Path
) -> None:
    principal = await bench.customer()
    kept = await keep(pool, store, principal, song)
    owner = {"organization_id": principal.organization_id, "project_id": None}
    expected = InputFile(content=content(song), content_type="audio/flac", frames=FRAMES)
    for frames in (FRAMES, None):
        assert await handed(inputs, AudioInput(file_id=kept.id.hex, frames=frames), **owner) == expected
    damaged = content(song)[:1_000] + bytes(2_000)
    async with web_server({"/song": page(content(song)), "/damaged": page(damaged)}) as server:
        assert await handed(inputs, AudioInput(url=server.url()), **owner) == expected
        for path in ("/damaged", "/none"):
            with pytest.raises(InputUnreadable):
                await handed(inputs, AudioInput(url=server.url(path)), **owner)
    with pytest.raises(InputUnreadable, match="not there any more"):
        await handed(inputs, AudioInput(file_id=new_id().hex, frames=9), **owner)
    assert names_in(scratch) == []


async def test_a_rare_file_is_handed_over_as_an_mp3_of_the_same_length_unless_it_is_too_large(
    song: Path, inputs: AudioInputs, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"organization_id": new_id(), "project_id": None}
    rare = song.with_suffix(".aiff")
    samples, rate = soundfile.read(song)
    soundfile.write(rare, samples, rate)
    async with web_server({"/rare": page(content(rare)), "/large": page(content(song))}) as server:
        made = await handed(inputs, AudioInput(url=server.url("/rare")), **owner)
        monkeypatch.setattr("gateway.files.inputs.MAX_HANDED_BYTES", 1_000)
        with pytest.raises(InputTooLong):  # also as an MP3
            await handed(inputs, AudioInput(url=server.url("/large")), **owner)
    assert (made.content_type, made.frames) == ("audio/mpeg", FRAMES)
    assert soundfile.info(io.BytesIO(made.content)).frames == FRAMES
    assert names_in(scratch) == []


async def test_a_worker_reads_no_file_of_somebody_else(
    bench: Workbench, pool: Pool, store: AudioStore, song: Path, inputs: AudioInputs
) -> None:
    principal, other = await bench.customer(), await bench.customer()
    kept = AudioInput(file_id=(await keep(pool, store, principal, song)).id.hex)
    for organization_id, project_id in [
        (other.organization_id, None),
        (principal.organization_id, new_id()),
    ]:
        with pytest.raises(InputUnreadable, match="not there any more"):
            await inputs.samples(kept, organization_id=organization_id, project_id=project_id)
    for nothing in (AudioInput(file_id="x"), AudioInput(file_id=new_id().hex), AudioInput()):
        with pytest.raises(InputUnreadable, match="not there any more"):
            await inputs.samples(nothing, organization_id=principal.organization_id, project_id=None)


@pytest.mark.parametrize("field", ["source_audio", "reference_audio"])
async def test_an_expired_file_stays_until_the_last_job_that_names_it_has_ended(
    bench: Workbench, pool: Pool, store: AudioStore, song: Path, inputs: AudioInputs, field: str
) -> None:
    principal = await bench.customer()
    needed, unneeded, young = [await keep(pool, store, principal, song) for _ in range(3)]
    named = AudioInput(file_id=needed.id.hex, frames=FRAMES)
    await job_with(bench, principal, **{field: named})
    expired = [needed.id, unneeded.id]
    await pool.execute(
        "UPDATE file SET expires_at = now() - interval '9 minutes' WHERE id = ANY($1)", expired
    )
    assert await sweep_files(pool, store) == 0  # a job with it may be about to be committed
    await pool.execute("UPDATE file SET expires_at = now() - interval '1 hour' WHERE id = ANY($1)", expired)
    assert await sweep_files(pool, store) == 1
    assert [await there(store, file.key) for file in (needed, unneeded, young)] == [True, False, True]
    claim = await bench.claim_one()
    assert await sweep_files(pool, store) == 0
    samples = await inputs.samples(named, organization_id=principal.organization_id, project_id=None)
    assert samples.shape == (2, FRAMES)
    await bench.deliver(claim)
    assert await sweep_files(pool, store) == 1
    assert [await there(store, file.key) for file in (needed, young)] == [False, True]
    assert await pool.fetchval("SELECT array_agg(id) FROM file") == [young.id]


async def test_what_a_crash_left_half_stored_is_seen_by_nobody_and_goes(
    bench: Workbench, pool: Pool, store: AudioStore, song: Path, inputs: AudioInputs
) -> None:
    principal = await bench.customer()
    kept = await keep(pool, store, principal, song)
    await pool.execute("UPDATE file SET stored = false, expires_at = now() - interval '1 hour'")
    with pytest.raises(InputUnreadable):
        await inputs.samples(
            AudioInput(file_id=kept.id.hex), organization_id=principal.organization_id, project_id=None
        )
    assert await sweep_files(pool, store) == 1
    assert not await there(store, kept.key)
