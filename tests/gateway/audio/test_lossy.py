"""Bitrate, rate, channels and length of MP3 and Ogg: each table entry encoded, read again and decoded."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gateway.audio import MASTER_SAMPLE_RATE, AudioFormat, EncodedFile, Encoder, Encoding
from gateway.audio.formats import MP3_BITRATES_KBPS, OGG_BITRATES_KBPS, legal_bitrates_kbps
from tests.gateway.audio.bitstreams import vorbis_stream
from tests.gateway.audio.listening import Samples, heard, heard_by_ffmpeg, lossy, prove_all

SECONDS = 30
SAMPLE = [
    *((AudioFormat.MP3, rate, 1 + rate % 16 // 8, MP3_BITRATES_KBPS[rate][2]) for rate in MP3_BITRATES_KBPS),
    (AudioFormat.MP3, 44_100, 2, 192),
    (AudioFormat.MP3, 48_000, 2, 320),
    (AudioFormat.OGG, 8_000, 1, 8),
    (AudioFormat.OGG, 12_000, 2, 96),
    (AudioFormat.OGG, 48_000, 2, 160),
]


def tone(hertz: float, *, frames: int, sample_rate: int = MASTER_SAMPLE_RATE) -> Samples:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(frames) / sample_rate)
    return np.stack([wave, wave]).astype(np.float32)


def noise(level: float, *, frames: int) -> Samples:
    samples = np.random.default_rng(1).standard_normal((2, frames)) * level
    return np.clip(samples, -1, 1).astype(np.float32)


def decibels(samples: Samples, reference: Samples) -> float:
    """Power against the reference's."""
    power, full = (np.mean(np.square(each, dtype=np.float64)) for each in (samples, reference))
    return float(10 * np.log10(power / full + 1e-20))


def middle(samples: Samples) -> Samples:
    """Without the ends, where a tone that starts at once is no pure tone."""
    return samples[:, 5_000:-5_000]


def likeness(left: Samples, right: Samples) -> float:
    """Correlation without any shift: 1 is the same sound at the same moment."""
    return float(np.corrcoef(left.ravel(), right.ravel())[0, 1])


HARD_SOUNDS: dict[str, Callable[[int], Samples]] = {
    "silence": lambda frames: np.zeros((2, frames), np.float32),
    "near silence": lambda frames: noise(1e-4, frames=frames),
    "pure tone": lambda frames: tone(440, frames=frames),
    "white noise": lambda frames: noise(0.2, frames=frames),
}


def _mostly_slow(cases: Iterable[Any], quick: set[Any]) -> list[Any]:
    """Some of them in every run, all of them in the longer one."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("rate", _mostly_slow(MP3_BITRATES_KBPS, {48_000, 22_050, 8_000}))
async def test_every_frame_of_every_mp3_is_what_was_ordered(
    encoder: Encoder, song: Samples, tmp_path: Path, rate: int
) -> None:
    part = song[:, : MASTER_SAMPLE_RATE + 17]
    master = await encoder.write_master(part, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    orders = [
        lossy(AudioFormat.MP3, rate, channels, kbps)
        for channels in (1, 2)
        for kbps in MP3_BITRATES_KBPS[rate]
    ]
    await prove_all(encoder, master, orders, tmp_path)


@pytest.mark.parametrize("rate", _mostly_slow(OGG_BITRATES_KBPS, {48_000, 8_000}))
async def test_an_ogg_is_managed_from_end_to_end_of_its_table(
    encoder: Encoder, song: Samples, tmp_path: Path, rate: int
) -> None:
    part = song[:, : MASTER_SAMPLE_RATE + 17]
    master = await encoder.write_master(part, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    orders = [
        lossy(AudioFormat.OGG, rate, channels, kbps)
        for channels, (low, high) in OGG_BITRATES_KBPS[rate].items()
        for kbps in (low, low + 1, (low + high) // 2, high)
    ]
    await prove_all(encoder, master, orders, tmp_path)


@pytest.mark.parametrize("sound", _mostly_slow(HARD_SOUNDS, {"near silence"}))
async def test_hard_sound_holds_the_bitrate_of_half_a_minute(
    encoder: Encoder, tmp_path: Path, sound: str
) -> None:
    samples = HARD_SOUNDS[sound](SECONDS * MASTER_SAMPLE_RATE)
    master = await encoder.write_master(samples, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    orders = [
        lossy(AudioFormat.OGG, 12_000, 1, 16),
        lossy(AudioFormat.OGG, 8_000, 2, 80),
        lossy(AudioFormat.MP3, 48_000, 2, 320),
        lossy(AudioFormat.MP3, 8_000, 1, 8),
    ]
    await prove_all(encoder, master, orders, tmp_path)


@pytest.mark.parametrize("seconds", [SECONDS, 2 * SECONDS])
async def test_noise_at_the_lowest_bitrate_overdraws_two_seconds_once(
    encoder: Encoder, tmp_path: Path, seconds: int
) -> None:
    # The reservoir of managed Vorbis: the only sound and bitrate known that miss 5 % in 30 s.
    samples = noise(0.2, frames=seconds * MASTER_SAMPLE_RATE)
    master = await encoder.write_master(samples, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    made = await encoder.encode(master, lossy(AudioFormat.OGG, 8_000, 1, 8), folder=tmp_path)
    packets = vorbis_stream(made.path.read_bytes()).packets
    assert 1.5 * 8 < (packets - 8) * seconds < 2 * 8


@pytest.mark.parametrize("order", SAMPLE)
async def test_both_decoders_hear_the_same_song_of_the_same_length(
    encoder: Encoder, master: EncodedFile, tmp_path: Path, order: tuple[AudioFormat, int, int, int]
) -> None:
    made = await encoder.encode(master, lossy(*order), folder=tmp_path)
    ours, theirs = heard(made), await heard_by_ffmpeg(made)
    assert ours.shape == theirs.shape == (made.channels, made.frames)
    assert likeness(ours, theirs) > 0.999


@pytest.mark.parametrize("rate", [48_000, 24_000])
async def test_an_mp3_is_exact_where_the_padding_exceeds_a_frame(
    encoder: Encoder, song: Samples, tmp_path: Path, rate: int
) -> None:
    for frames in range(20_000, 21_200, 40):
        part = song[:, :frames]
        master = await encoder.write_master(part, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
        made = await encoder.encode(master, lossy(AudioFormat.MP3, rate, 2, 64), folder=tmp_path)
        assert made.frames == heard(made).shape[1] == frames * rate // MASTER_SAMPLE_RATE


@pytest.mark.parametrize(
    "encoding", [lossy(AudioFormat.MP3, 48_000, 2, 320), lossy(AudioFormat.OGG, 48_000, 2, 192)]
)
async def test_lossy_sound_is_the_song_and_in_time(
    encoder: Encoder, master: EncodedFile, song: Samples, tmp_path: Path, encoding: Encoding
) -> None:
    made = await encoder.encode(master, encoding, folder=tmp_path)
    assert likeness(heard(made), song) > 0.99


@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.OGG])
async def test_mono_is_the_mean_of_both_channels(
    encoder: Encoder, master: EncodedFile, song: Samples, tmp_path: Path, audio_format: AudioFormat
) -> None:
    made = await encoder.encode(master, lossy(audio_format, 48_000, 1, 192), folder=tmp_path)
    mono, mean = heard(made), song.mean(axis=0, keepdims=True)
    assert likeness(mono, mean) > 0.99
    assert float(mono.std()) == pytest.approx(float(mean.std()), rel=0.04)  # LAME turns down by 3 %


async def test_opposite_channels_cancel_in_mono(encoder: Encoder, tmp_path: Path) -> None:
    samples = tone(997, frames=MASTER_SAMPLE_RATE) * np.float32([[1], [-1]])
    master = await encoder.write_master(samples, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    made = await encoder.encode(master, lossy(AudioFormat.MP3, 48_000, 1, 192), folder=tmp_path)
    assert decibels(heard(made), samples) < -90


async def test_a_resampled_file_keeps_time(
    encoder: Encoder, master: EncodedFile, song: Samples, tmp_path: Path
) -> None:
    made = await encoder.encode(master, lossy(AudioFormat.MP3, 24_000, 2, 160), folder=tmp_path)
    assert likeness(heard(made), song[:, ::2]) > 0.99


@pytest.mark.parametrize("rate", [22_050, 44_100, 96_000])
async def test_a_tone_from_another_rate_is_the_same_tone_in_the_master(
    encoder: Encoder, tmp_path: Path, rate: int
) -> None:
    made = await encoder.write_master(
        tone(997, frames=2 * rate, sample_rate=rate), sample_rate=rate, folder=tmp_path
    )
    ideal = tone(997, frames=2 * MASTER_SAMPLE_RATE)
    samples, _ = soundfile.read(made.path, dtype="float32")
    assert decibels(middle(samples.T - ideal), ideal) < -125


@pytest.mark.parametrize(
    "encoding",
    [
        lossy(AudioFormat.MP3, 24_000, 2, 160),
        lossy(AudioFormat.MP3, 8_000, 1, 64),
        lossy(AudioFormat.OGG, 24_000, 2, 160),
        lossy(AudioFormat.OGG, 8_000, 1, 40),
    ],
)
async def test_a_tone_above_the_new_range_vanishes_and_folds_nowhere(
    encoder: Encoder, tmp_path: Path, encoding: Encoding
) -> None:
    high = tone(15_000, frames=3 * MASTER_SAMPLE_RATE)
    master = await encoder.write_master(high, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    made = await encoder.encode(master, encoding, folder=tmp_path)
    assert decibels(middle(heard(made)), high) < -120


@pytest.mark.parametrize(
    ("encoding", "level"),
    [
        (lossy(AudioFormat.MP3, 44_100, 2, 320), 1),
        (lossy(AudioFormat.MP3, 48_000, 1, 192), 0.97),
        (lossy(AudioFormat.MP3, 16_000, 1, 160), 0.95),
        (lossy(AudioFormat.OGG, 24_000, 2, 160), 1),
    ],
)
async def test_a_tone_keeps_its_pitch_and_its_level_but_for_lames(
    encoder: Encoder, tmp_path: Path, encoding: Encoding, level: float
) -> None:
    source = tone(997, frames=2 * MASTER_SAMPLE_RATE)
    master = await encoder.write_master(source, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    made = await encoder.encode(master, encoding, folder=tmp_path)
    ideal = tone(997, frames=made.frames, sample_rate=made.sample_rate)[: made.channels]
    sound, ideal = middle(heard(made)), middle(ideal)
    found = float(np.vdot(sound, ideal) / np.vdot(ideal, ideal))
    assert found == pytest.approx(level, abs=0.005)
    assert decibels(sound - np.float32(found) * ideal, ideal) < -45


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", MP3_BITRATES_KBPS)
async def test_half_a_minute_of_music_is_exact_in_every_mp3(
    encoder: Encoder, composed: Samples, tmp_path: Path, rate: int, channels: int
) -> None:
    master = await encoder.write_master(composed, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    orders = [lossy(AudioFormat.MP3, rate, channels, kbps) for kbps in MP3_BITRATES_KBPS[rate]]
    await prove_all(encoder, master, orders, tmp_path, by_ffmpeg_too=True)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", OGG_BITRATES_KBPS)
async def test_half_a_minute_of_music_is_exact_in_every_ogg(
    encoder: Encoder, composed: Samples, tmp_path: Path, rate: int, channels: int
) -> None:
    master = await encoder.write_master(composed, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    bitrates = legal_bitrates_kbps(AudioFormat.OGG, sample_rate=rate, channels=channels)
    orders = [lossy(AudioFormat.OGG, rate, channels, kbps) for kbps in bitrates]
    await prove_all(encoder, master, orders, tmp_path, by_ffmpeg_too=True)


@pytest.mark.slow
@pytest.mark.parametrize("sound", HARD_SOUNDS)
@pytest.mark.parametrize("rate", OGG_BITRATES_KBPS)
async def test_hard_sound_holds_the_bitrate_at_both_ends_of_every_table(
    encoder: Encoder, tmp_path: Path, rate: int, sound: str
) -> None:
    samples = HARD_SOUNDS[sound](SECONDS * MASTER_SAMPLE_RATE)
    master = await encoder.write_master(samples, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)
    for channels, (low, high) in OGG_BITRATES_KBPS[rate].items():
        for kbps in (low, high):
            made = await encoder.encode(master, lossy(AudioFormat.OGG, rate, channels, kbps), folder=tmp_path)
            deviation = vorbis_stream(made.path.read_bytes()).packets / kbps - 1
            most = 2 / SECONDS if sound == "white noise" else 0.01
            assert -0.01 < deviation < most, (sound, rate, channels, kbps)
