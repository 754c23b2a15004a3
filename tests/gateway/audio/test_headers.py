from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.audio import AudioFormat, EncodedFile, EncodeFailed, Encoder, mp3, resolve_encoding
from gateway.audio.ffmpeg import find_ffmpeg, run_ffmpeg
from gateway.audio.headers import read_facts
from gateway.audio.mp3 import finish_mp3
from tests.gateway.audio.bitstreams import mpeg_headers
from tests.gateway.audio.listening import lossy

WHOLE_TAG = 4 + 32 + 120
"""Where LAME's part starts in a stereo frame of MPEG-1: behind header, side information and 120 bytes."""


def checksum_is_right(content: bytes, lame_offset: int) -> bool:
    end = lame_offset + 34
    return mp3._crc16(bytearray(content[:end])) == int.from_bytes(content[end : end + 2], "big")


@pytest.fixture(params=list(AudioFormat))
async def made(
    request: pytest.FixtureRequest, encoder: Encoder, master: EncodedFile, tmp_path: Path
) -> EncodedFile:
    return await encoder.encode(master, resolve_encoding(request.param, None), folder=tmp_path)


async def test_a_file_tells_its_frames_rate_and_channels(made: EncodedFile) -> None:
    facts = read_facts(made.path, made.format)
    assert (facts.frames, facts.sample_rate, facts.channels) == (made.frames, 48_000, 2)


async def test_a_file_cut_short_is_no_file(made: EncodedFile) -> None:
    whole = made.path.read_bytes()
    shares = (0.0, 0.00002) if made.format is AudioFormat.FLAC else (0.0, 0.00002, 0.3, 0.9, 0.9999)
    for share in shares:
        made.path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(EncodeFailed):
            read_facts(made.path, made.format)


async def test_a_file_of_another_format_is_refused(made: EncodedFile) -> None:
    for other in set(AudioFormat) - {made.format}:
        with pytest.raises(EncodeFailed):
            read_facts(made.path, other)


@pytest.mark.parametrize("audio_format", list(AudioFormat))
@given(content=st.binary(max_size=200))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_at_all_crash_a_reader(tmp_path: Path, audio_format: AudioFormat, content: bytes) -> None:
    starts = {
        "flac": b"fLaC\0\0\0\x22",
        "wav": b"RIFF\0\0\0\0WAVEfmt ",
        "ogg": b"OggS\0\0",
        "mp3": b"\xff\xfb",
    }
    path = tmp_path / "noise"
    path.write_bytes(starts[audio_format] + content)
    try:
        read_facts(path, audio_format)
    except EncodeFailed:
        return


async def test_only_a_small_correction_is_made_to_an_mp3s_length(
    encoder: Encoder, master: EncodedFile, tmp_path: Path
) -> None:
    made = await encoder.encode(master, resolve_encoding(AudioFormat.MP3, None), folder=tmp_path)
    for frames in (made.frames - 1_200, made.frames + 1_200):
        with pytest.raises(EncodeFailed, match="instead of"):
            finish_mp3(made.path, frames)


async def test_the_checksum_of_the_tag_is_made_as_the_encoder_makes_it(
    master: EncodedFile, tmp_path: Path
) -> None:
    raw = tmp_path / "raw.mp3"
    arguments = ["-i", str(master.path), "-b:a", "192k", "-id3v2_version", "0", str(raw)]
    await run_ffmpeg(find_ffmpeg(), arguments, timeout_seconds=30)
    assert checksum_is_right(raw.read_bytes(), WHOLE_TAG)
    finish_mp3(raw, master.frames)
    assert checksum_is_right(raw.read_bytes(), WHOLE_TAG)


@pytest.mark.parametrize(
    ("rate", "channels", "kbps"),
    [(48_000, 2, 32), (44_100, 1, 48), (24_000, 2, 24), (11_025, 2, 16), (8_000, 1, 8), (8_000, 2, 8)],
)
async def test_a_small_frame_holds_a_whole_tag(
    encoder: Encoder, master: EncodedFile, tmp_path: Path, rate: int, channels: int, kbps: int
) -> None:
    made = await encoder.encode(master, lossy(AudioFormat.MP3, rate, channels, kbps), folder=tmp_path)
    content = made.path.read_bytes()
    headers = mpeg_headers(content)
    start = content.index(b"Info")
    assert content[start + 4 : start + 8] == b"\0\0\0\x01"  # nothing but the number of frames
    assert int.from_bytes(content[start + 8 : start + 12], "big") == len(headers) - 1
    lame = content[start + 12 : start + 48]
    gap, length = int.from_bytes(lame[21:24], "big"), int.from_bytes(lame[28:32], "big")
    assert lame[:4] == b"LAME"
    samples = (len(headers) - 1) * (1152 if headers[0].version == "MPEG-1" else 576)
    assert samples - (gap >> 12) - (gap & 0xFFF) == made.frames
    assert length == len(content) == made.size_bytes
    assert checksum_is_right(content, start + 12)


@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.OGG])
async def test_a_file_tells_the_bitrate_that_it_holds(
    encoder: Encoder, master: EncodedFile, tmp_path: Path, audio_format: AudioFormat
) -> None:
    made = await encoder.encode(master, lossy(audio_format, 24_000, 2, 96), folder=tmp_path)
    assert read_facts(made.path, audio_format).bitrate_kbps == 96


async def test_a_file_that_holds_no_bitrate_tells_none(
    encoder: Encoder, master: EncodedFile, tmp_path: Path
) -> None:
    free = tmp_path / "free.ogg"
    arguments = ["-i", str(master.path), "-c:a", "libvorbis", "-b:a", "96k", str(free)]
    await run_ffmpeg(find_ffmpeg(), arguments, timeout_seconds=30)
    mixed, other = [
        await encoder.encode(master, lossy(AudioFormat.MP3, 48_000, 2, kbps), folder=tmp_path)
        for kbps in (96, 128)
    ]
    mixed.path.write_bytes(mixed.path.read_bytes() + other.path.read_bytes()[384:])  # without its tag
    for path, audio_format in ((free, AudioFormat.OGG), (mixed.path, AudioFormat.MP3)):
        assert read_facts(path, audio_format).bitrate_kbps is None
