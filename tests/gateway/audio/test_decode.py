"""Files of strangers: exact samples of what is sound, plain words for all else, no harm from any."""

import asyncio
import struct
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from gateway.audio import (
    DecodeFailed,
    Decoder,
    InputTooLong,
    InputUnreadable,
    UnknownContainer,
    decode,
)
from gateway.audio.containers import sniff
from gateway.audio.ffmpeg import find_ffmpeg

Samples = npt.NDArray[np.float32]
RATE = 44_100
FRAMES = RATE + 17
"""At 44.1 kHz; 48018.5 at 48 kHz."""
LOSSLESS = ("wav", "flac", "aiff", "mka")
OTHERS = ("mp3", "ogg", "opus", "m4a", "webm")


def pcm(samples: npt.NDArray[np.int16], *, rate: int) -> bytes:
    """A WAV file of `[frames, channels]`."""
    return riff(struct.pack("<HHIIHH", 1, samples.shape[1], rate, 0, 0, 16), samples.astype("<i2").tobytes())


def floats(samples: Samples, *, rate: int = 48_000) -> bytes:
    """A WAV file of float samples."""
    layout = struct.pack("<HHIIHH", 3, samples.shape[1], rate, 0, 4 * samples.shape[1], 32)
    return riff(layout, samples.astype("<f4").tobytes())


def riff(layout: bytes, data: bytes) -> bytes:
    channels, rate = struct.unpack_from("<2xHI", layout)
    bits = struct.unpack_from("<H", layout, 14)[0]
    size = channels * bits // 8
    layout = layout[:8] + struct.pack("<IHH", rate * size, size, bits)
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16)
    return head + layout + struct.pack("<4sI", b"data", len(data)) + data


def noise(frames: int, channels: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(3).integers(-9_000, 9_000, (frames, channels)).astype(np.int16)


def ffmpeg(*arguments: str, folder: Path) -> None:
    command = [find_ffmpeg(), "-y", "-loglevel", "error", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same second in every kind of file, one with a cover, and a film."""
    folder = tmp_path_factory.mktemp("album")
    (folder / "a.wav").write_bytes(pcm(noise(FRAMES, 2), rate=RATE))
    outputs = [f"a.{suffix}" for suffix in ("flac", "aiff", *OTHERS)]
    sounds = [part for name in outputs for part in ("-map", "0:a", name)]
    film = ["-map", "1:v", "-c:v", "mpeg4"]
    ffmpeg(
        "-i", "a.wav", "-f", "lavfi", "-i", "color=red:s=32x32:d=2:r=4", *sounds,
        "-map", "0:a", "-c:a", "flac", "a.mka", "-map", "0:a", *film, "film.mp4", *film, "silent.mp4",
        folder=folder,
    )  # fmt: skip
    ffmpeg("-f", "lavfi", "-i", "color=red:s=32x32", "-frames:v", "1", "cover.png", folder=folder)
    both = ["-map", "0", "-map", "1", "-c:v", "copy"]
    ffmpeg("-i", "a.wav", "-i", "cover.png", *both, "cover.mp3", folder=folder)
    return folder


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(concurrency=2, timeout_seconds=60)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "input"
    path.write_bytes(data)
    return path


async def test_every_kind_of_file_has_its_exact_length_and_layout(decoder: Decoder, album: Path) -> None:
    names = [f"a.{suffix}" for suffix in (*LOSSLESS, *OTHERS)] + ["cover.mp3", "film.mp4"]
    facts_of_all = await asyncio.gather(*(decoder.measure(album / name) for name in names))
    found = dict(zip(names, facts_of_all, strict=True))
    assert {facts.frames for facts in found.values()} == {48_019}
    assert {facts.channels for facts in found.values()} == {2}
    assert {name for name, facts in found.items() if facts.sample_rate != RATE} == {"a.opus", "a.webm"}
    kinds = {name: facts.container.name for name, facts in found.items()}
    assert kinds["a.mka"] == kinds["a.webm"] == "webm"
    assert (kinds["a.opus"], kinds["film.mp4"], kinds["cover.mp3"]) == ("ogg", "m4a", "mp3")


async def test_files_without_loss_give_the_same_samples_and_give_them_again(
    decoder: Decoder, album: Path
) -> None:
    first = await decoder.decode(album / "a.wav")
    assert first.shape == (2, 48_019)
    assert first.flags.c_contiguous
    assert first.dtype == np.float32
    for name in ("a.wav", "a.flac", "a.aiff", "a.mka"):
        assert np.array_equal(await decoder.decode(album / name), first), name
    lossy = await decoder.decode(album / "a.mp3")
    assert np.array_equal(await decoder.decode(album / "a.mp3"), lossy)


@pytest.mark.parametrize("channels", [1, 2])
async def test_48_khz_is_taken_sample_by_sample(decoder: Decoder, tmp_path: Path, channels: int) -> None:
    whole = noise(12_345, channels)
    heard = await decoder.decode(write(tmp_path, pcm(whole, rate=48_000)))
    assert np.array_equal(heard, np.broadcast_to(whole.T / np.float32(32_768), (2, 12_345)))


@pytest.mark.parametrize("channels", [3, 8])
async def test_more_channels_are_mixed_and_do_not_overflow(
    decoder: Decoder, tmp_path: Path, channels: int
) -> None:
    loud = np.full((9_600, channels), 32_767, dtype=np.int16)
    heard = await decoder.decode(write(tmp_path, pcm(loud, rate=48_000)))
    assert heard.shape == (2, 9_600)
    assert 0.9 < np.abs(heard).max() <= 1.0001


async def test_many_channels_are_refused_in_plain_words(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(InputUnreadable, match="has 10 channels; at most 8 can be mixed"):
        await decoder.measure(write(tmp_path, pcm(noise(9_600, 10), rate=48_000)))


async def test_a_rate_that_no_converter_has_is_refused_before_it_costs_anything(
    decoder: Decoder, tmp_path: Path
) -> None:
    with pytest.raises(InputUnreadable, match="has 1000000000 samples a second; at most 768000"):
        await decoder.measure(write(tmp_path, pcm(noise(9_600, 1), rate=1_000_000_000)))


@pytest.mark.parametrize("rate", [8_000, 22_050, 192_000])
async def test_every_rate_keeps_the_length_to_the_sample(decoder: Decoder, tmp_path: Path, rate: int) -> None:
    frames = rate // 3 + 7
    facts = await decoder.measure(write(tmp_path, pcm(noise(frames, 1), rate=rate)))
    assert abs(facts.frames - frames * 48_000 / rate) <= 1
    assert (facts.sample_rate, facts.channels) == (rate, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF\x24\0\0\0AVI LIST",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1/a.mp3\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"\xff\xff\xff\xff" * 16,
        b"\xff\xf1\x50\x80" * 16,
        b"MThd\0\0\0\6",
    ],
)
async def test_what_is_no_audio_never_reaches_the_decoder(
    decoder: Decoder, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "find_ffmpeg", lambda: pytest.fail("it was run"))
    assert sniff(data) is None
    with pytest.raises(UnknownContainer, match="of a kind that is taken: wav, flac, mp3"):
        await decoder.measure(write(tmp_path, data))


@pytest.mark.parametrize(
    "data",
    [
        b"ID3\4\0\0\0\0\0\0#EXTM3U\n#EXTINF:9,\n/etc/passwd\n",
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + bytes(400),
        b"RIFF\x24\0\0\0WAVE",
        b"OggS" + bytes(4_000),
        b"fLaC" + b"\xff" * 4_000,
        b"\0\0\0\x18ftypM4A " + b"\xff" * 4_000,
        b"FORM\0\0\1\0AIFFCOMM" + bytes(300),
        b"\x1aE\xdf\xa3" + b"\x42" * 4_000,
        b"\xff\xfb\x90\x64" + b"\x55" * 300,
    ],
)
async def test_what_only_begins_like_audio_is_refused_in_plain_words(
    decoder: Decoder, tmp_path: Path, data: bytes
) -> None:
    with pytest.raises(InputUnreadable) as refusal:
        await decoder.measure(write(tmp_path, data))
    assert str(refusal.value) in {
        "the file is damaged, or has no sound of a kind that is taken",
        "there is no sound in the file",
    }


async def test_a_film_without_sound_is_refused(decoder: Decoder, album: Path) -> None:
    with pytest.raises(InputUnreadable, match="has no sound of a kind that is taken"):
        await decoder.measure(album / "silent.mp4")


async def test_a_cut_file_is_worth_what_is_left_of_it(decoder: Decoder, album: Path, tmp_path: Path) -> None:
    whole = (album / "a.wav").read_bytes()
    facts = await decoder.measure(write(tmp_path, whole[: len(whole) // 2]))
    assert 20_000 < facts.frames < 25_000


async def test_noise_in_place_of_most_of_the_sound_is_refused(
    decoder: Decoder, album: Path, tmp_path: Path
) -> None:
    whole = bytearray((album / "a.flac").read_bytes())
    whole[8_192:] = np.random.default_rng(5).bytes(len(whole) - 8_192)
    with pytest.raises(InputUnreadable):
        await decoder.measure(write(tmp_path, bytes(whole)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
async def test_samples_that_are_no_sound_are_refused(decoder: Decoder, tmp_path: Path, value: float) -> None:
    samples = np.zeros((9_600, 2), dtype=np.float32)
    samples[9_000, 1] = value
    with pytest.raises(InputUnreadable, match="no finite numbers, or far beyond full scale"):
        await decoder.measure(write(tmp_path, floats(samples)))


async def test_a_blink_is_too_short(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(InputUnreadable, match=r"the file has 0\.099 s of sound; at least 0\.1 s are needed"):
        await decoder.measure(write(tmp_path, pcm(noise(4_750, 2), rate=48_000)))


async def test_decoding_stops_where_too_much_begins(
    decoder: Decoder, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MAX_SECONDS", 1)
    for method in (decoder.measure, decoder.decode):
        with pytest.raises(InputTooLong, match="longer than 1 s"):
            await method(album / "a.flac")
    monkeypatch.setattr(decode, "MAX_SECONDS", 1.001)
    assert (await decoder.measure(album / "a.flac")).frames == 48_019


@pytest.mark.slow
async def test_a_small_file_with_an_hour_of_silence_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo", "-t", "3600", "bomb.flac", folder=tmp_path)
    assert (tmp_path / "bomb.flac").stat().st_size < 3_000_000
    before = psutil.Process().memory_info().rss
    with pytest.raises(InputTooLong, match="longer than 600 s"):
        await decoder.measure(tmp_path / "bomb.flac")
    assert psutil.Process().memory_info().rss - before < 50_000_000


async def test_memory_and_time_are_bounded(
    album: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputUnreadable, match="takes too long to decode"):
        await Decoder(timeout_seconds=0).measure(album / "a.mp3")
    with monkeypatch.context() as patched:
        patched.setattr(decode, "_MEMORY_KIB", 100_000)
        with pytest.raises(InputUnreadable, match="more time or memory to decode than is allowed"):
            await decoder.measure(album / "a.mp3")
    assert (await decoder.measure(album / "a.mp3")).frames == 48_019


async def test_a_cancelled_decode_leaves_no_process(album: Path, decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(pcm(np.zeros((8_000 * 590, 1), dtype=np.int16), rate=8_000))
    known = set(psutil.Process().children())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await decoder.measure(tmp_path / "long.wav")
    assert set(psutil.Process().children()) <= known
    assert (await decoder.measure(album / "a.wav")).frames == 48_019


async def test_no_decoder_is_nobodys_fault_but_the_operators(
    album: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "find_ffmpeg", lambda: Path("/nowhere/ffmpeg"))
    with pytest.raises(DecodeFailed, match="does not start"):
        await decoder.measure(album / "a.wav")


@pytest.mark.parametrize("source", ["{wav}", "file:{wav}", "concat:{wav}", "http://127.0.0.1:9/a.wav"])
def test_the_child_may_open_nothing_by_name(album: Path, source: str) -> None:
    told = source.format(wav=album / "a.wav")
    command = [find_ffmpeg(), *decode._INPUT, "-f", "wav", "-i", told, "-f", "null", "-"]
    ended = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode != 0
    assert b"not on whitelist 'fd'" in ended.stderr
