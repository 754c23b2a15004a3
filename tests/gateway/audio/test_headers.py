from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.audio import AudioFormat, EncodedFile, EncodeFailed, Encoder, resolve_encoding
from gateway.audio.ffmpeg import find_ffmpeg, run_ffmpeg
from gateway.audio.headers import read_facts
from gateway.audio.mp3 import set_mp3_length


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
            set_mp3_length(made.path, frames)


async def test_the_checksum_of_an_unchanged_tag_is_the_encoders_own(
    master: EncodedFile, tmp_path: Path
) -> None:
    raw = tmp_path / "raw.mp3"
    arguments = ["-i", str(master.path), "-b:a", "192k", "-id3v2_version", "0", "-t", "5", str(raw)]
    await run_ffmpeg(find_ffmpeg(), arguments, timeout_seconds=30)
    before = raw.read_bytes()
    set_mp3_length(raw, 5 * 48_000)
    assert raw.read_bytes() == before
