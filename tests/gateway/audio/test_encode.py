import asyncio
import contextlib
import hashlib
import os
import stat
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import soundfile

from gateway.audio import (
    MASTER,
    MASTER_SAMPLE_RATE,
    AudioFormat,
    EncodedFile,
    EncodeFailed,
    Encoder,
    Encoding,
    resolve_encoding,
)
from gateway.audio.ffmpeg import run_ffmpeg
from tests.gateway.audio.listening import Samples, heard_by_ffmpeg, lossy


def listing(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def encoders_running() -> list[psutil.Process]:
    """Other children, such as the tests' database, are not ours to count; nor is one that ends meanwhile."""
    running = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name().startswith("ffmpeg"):
                running.append(child)
    return running


async def test_the_master_holds_every_24_bit_sample(encoder: Encoder, song: Samples, tmp_path: Path) -> None:
    exact = (np.round(song * 2**23) / 2**23).astype(np.float32)
    made = await encoder.write_master(exact, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    heard, rate = soundfile.read(made.path, dtype="float32")
    assert soundfile.info(made.path).subtype == "PCM_24"
    assert (rate, made.sample_rate, made.frames) == (48_000, 48_000, song.shape[1])
    assert np.array_equal(heard.T, exact)


async def test_what_is_told_of_a_file_is_read_from_the_file(master: EncodedFile) -> None:
    data = master.path.read_bytes()
    assert master.sha256 == hashlib.sha256(data).hexdigest()
    assert (master.size_bytes, master.content_type) == (len(data), "audio/flac")
    assert master.duration_seconds == master.frames / 48_000


@pytest.mark.parametrize("audio_format", list(AudioFormat))
async def test_the_same_input_gives_the_same_bytes(
    encoder: Encoder, song: Samples, tmp_path: Path, audio_format: AudioFormat
) -> None:
    hashes = set()
    for _ in range(2):
        master = await encoder.write_master(song, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
        made = await encoder.encode(master, resolve_encoding(audio_format, None), folder=tmp_path)
        hashes.add(made.sha256)
    assert len(hashes) == 1


async def test_flac_delivery_is_the_master(encoder: Encoder, master: EncodedFile, tmp_path: Path) -> None:
    assert await encoder.encode(master, MASTER, folder=tmp_path) is master


async def test_wav_is_plain_dithered_16_bit_pcm(
    encoder: Encoder, master: EncodedFile, song: Samples, tmp_path: Path
) -> None:
    made = await encoder.encode(master, resolve_encoding(AudioFormat.WAV, None), folder=tmp_path)
    heard, _ = soundfile.read(made.path, dtype="float32")
    assert soundfile.info(made.path).subtype == "PCM_16"
    assert made.path.read_bytes()[20:22] == b"\x01\x00"  # WAVE_FORMAT_PCM
    assert (made.frames, heard.shape[0]) == (song.shape[1], song.shape[1])
    error = (heard.T - song) * 2**15
    assert np.abs(error).max() <= 2
    assert abs(float(error.mean())) < 0.01
    assert float(error.std()) == pytest.approx(0.5, abs=0.05)  # TPDF (1/6) and rounding (1/12): variance 1/4


async def test_mono_at_another_rate_becomes_a_48_khz_stereo_master(
    encoder: Encoder, song: Samples, tmp_path: Path
) -> None:
    made = await encoder.write_master(song[:1, : 44_100 * 3], sample_rate=44_100, folder=tmp_path)
    heard = await heard_by_ffmpeg(made)
    assert (made.sample_rate, made.channels, made.frames) == (48_000, 2, 144_000)
    assert np.array_equal(heard[0], heard[1])
    assert float(heard.std()) == pytest.approx(float(song[0, : 44_100 * 3].std()), rel=0.02)


async def test_every_format_can_be_made_here(encoder: Encoder, tmp_path: Path) -> None:
    await encoder.probe(tmp_path)
    assert not listing(tmp_path)


@pytest.mark.parametrize("shape", [(2, 0), (3, 100), (1, 901 * 48_000)])
async def test_impossible_audio_is_refused(encoder: Encoder, tmp_path: Path, shape: tuple[int, int]) -> None:
    samples = np.broadcast_to(np.float32(0), shape)
    with pytest.raises(EncodeFailed, match="cannot encode"):
        await encoder.write_master(samples, sample_rate=48_000, folder=tmp_path)


async def test_a_failing_encode_says_why_and_leaves_nothing(
    encoder: Encoder, master: EncodedFile, tmp_path: Path
) -> None:
    master.path.write_bytes(b"no flac at all")
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(EncodeFailed, match="Invalid data"):
        await encoder.encode(master, lossy(AudioFormat.MP3, 48_000, 2, 320), folder=folder)
    assert not listing(folder)


@pytest.mark.parametrize("share", [0.5, 0.97])
@pytest.mark.parametrize(
    "encoding", [resolve_encoding(AudioFormat.WAV, None), lossy(AudioFormat.MP3, 44_100, 2, 192)]
)
async def test_a_master_cut_short_makes_no_shorter_song(
    encoder: Encoder, master: EncodedFile, tmp_path: Path, encoding: Encoding, share: float
) -> None:
    os.truncate(master.path, int(master.size_bytes * share))
    with pytest.raises(EncodeFailed):
        await encoder.encode(master, encoding, folder=tmp_path)
    assert listing(tmp_path) == [master.path]


async def test_a_master_cut_between_two_blocks_is_not_filled_up_with_silence(
    encoder: Encoder, song: Samples, tmp_path: Path
) -> None:
    whole = await encoder.write_master(song, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    half = await encoder.write_master(song[:, :100_000], sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    claimed = msgspec.structs.replace(half, frames=whole.frames)
    with pytest.raises(EncodeFailed, match="instead of"):
        await encoder.encode(claimed, lossy(AudioFormat.OGG, 24_000, 2, 133), folder=tmp_path)


async def test_a_folder_that_is_not_there_is_an_encode_failure(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(EncodeFailed, match="No such file"):
        await encoder.write_master(np.zeros((2, 480), np.float32), sample_rate=48_000, folder=tmp_path / "no")


async def test_an_encoder_that_takes_too_long_is_killed(song: Samples, tmp_path: Path) -> None:
    encoder = Encoder(timeout_seconds=0.01)
    with pytest.raises(EncodeFailed, match="more than"):
        await encoder.write_master(np.tile(song, 20), sample_rate=48_000, folder=tmp_path)
    assert not listing(tmp_path)
    assert not encoders_running()


async def test_a_cancelled_encode_leaves_no_process_and_no_file(
    encoder: Encoder, song: Samples, tmp_path: Path
) -> None:
    work = encoder.write_master(np.tile(song, 100), sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    task = asyncio.create_task(work)
    while not encoders_running() or not listing(tmp_path):
        await asyncio.sleep(0)
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not listing(tmp_path)
    assert not encoders_running()


async def test_no_more_encodes_than_turns_run_at_once(song: Samples, tmp_path: Path) -> None:
    encoder, most = Encoder(concurrency=1), 0
    tasks = [
        asyncio.create_task(encoder.write_master(song, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path))
        for _ in range(4)
    ]
    while not all(task.done() for task in tasks):
        most = max(most, len(encoders_running()))
        await asyncio.sleep(0)
    assert most == 1
    assert len(listing(tmp_path)) == 4


async def test_the_child_sees_none_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_SECRET_KEY", "not for children")
    fake = tmp_path / "fake"
    fake.write_text(f"#!/bin/sh\n/usr/bin/env > {tmp_path}/seen\nexit 3\n")
    fake.chmod(stat.S_IRWXU)
    with pytest.raises(EncodeFailed, match="failed with 3"):
        await run_ffmpeg(fake, [], timeout_seconds=5)
    assert "ANTIPHON" not in (tmp_path / "seen").read_text()


async def test_a_chatty_child_is_quoted_briefly(tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    fake.write_text(
        "#!/bin/sh\n/usr/bin/yes trouble | /usr/bin/head -c 1000000 >&2\necho the end >&2\nexit 1\n"
    )
    fake.chmod(stat.S_IRWXU)
    with pytest.raises(EncodeFailed, match=r"the end$") as caught:
        await run_ffmpeg(fake, [], timeout_seconds=5)
    assert len(str(caught.value)) < 2_100


async def test_an_ffmpeg_that_does_not_exist_is_an_encode_failure(tmp_path: Path) -> None:
    with pytest.raises(EncodeFailed, match="does not start"):
        await run_ffmpeg(tmp_path / "none", [], timeout_seconds=5)
