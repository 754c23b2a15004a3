"""What comes out of the sandbox model, measured on finished audio."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine import Canceled, DeviceUnavailable, EngineRequest
from engine.composer.arrange import compose
from engine.composer.render import render as render_steps
from engine.composer.score import SectionKind
from engine.composer.timbres import TIMBRES
from engine.composer.tone import render_tone
from engine.composer.vocabulary import INSTRUMENT_WORDS
from engine.runtime import open_engine

K = SectionKind
Ask = Callable[..., EngineRequest]
Render = Callable[..., NDArray[np.float32]]
RATE = 48_000
PATIENCE_S = 30.0


@pytest.mark.parametrize("frames", [240_000, 240_001, 311_111, 480_500, 48_000, 999, 1])
def test_the_length_is_exact(render: Render, frames: int) -> None:
    samples = render(frames=frames)
    assert samples.shape == (2, frames)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


def test_the_same_request_gives_the_same_bits(ask: Ask) -> None:
    songs = []
    for _ in range(2):
        *_, song = render_steps(compose(ask(8, prompt="house with strings")))
        assert isinstance(song, torch.Tensor)
        songs.append(song)
    assert torch.equal(songs[0], songs[1])


def test_another_seed_gives_another_song(render: Render) -> None:
    one, two = render(8, seed=1), render(8, seed=2)
    assert abs(np.corrcoef(one[0], two[0])[0, 1]) < 0.5


@pytest.mark.parametrize(
    ("prompt", "bpm", "meter"),
    [
        ("pop", 120, 4),
        ("rock", 93, 4),
        ("house", 127, 4),
        ("waltz", 140, 3),
        ("pop", 75, 6),
        ("jazz", 171, 4),
    ],
)
def test_the_asked_tempo_is_heard(render: Render, ears: Any, prompt: str, bpm: int, meter: int) -> None:
    samples = render(24, prompt=prompt, bpm=bpm, time_signature=meter)
    heard = ears.tempo(samples)
    levels = [bpm * level for level in (0.25, 1 / 3, 0.5, 1, 2, 3, 4)]
    assert min(abs(heard / level - 1) for level in levels) < 0.02, heard
    assert ears.pulse_strength(samples, bpm) > max(0.3, 1.5 * ears.pulse_strength(samples, bpm * 1.13))


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ("pop", "C major"),
        ("folk", "F# major"),
        ("piano ballad", "Bb major"),
        ("pop", "A minor"),
        ("synthwave", "Eb minor"),
        ("cinematic", "D minor"),
    ],
)
def test_the_asked_key_is_heard(render: Render, ears: Any, prompt: str, key: str) -> None:
    assert ears.key(render(24, prompt=prompt, key_scale=key)) == key


@pytest.mark.parametrize(
    "prompt",
    [
        "pop",
        "metal",
        "ambient",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("techno", "lo-fi", "classical")),
    ],
)
def test_every_kind_of_music_is_well_made(render: Render, ears: Any, prompt: str) -> None:
    samples = render(30, prompt=prompt, seed=3)
    assert np.abs(samples).max() <= 10 ** (-1 / 20) + 1e-6
    assert np.abs(samples).max() > 0.5
    assert np.abs(samples.mean(1)).max() < 1e-3
    assert -19.5 < ears.rms_db(samples) < -12
    assert ears.silent_share(samples) < 0.03
    assert 0.3 < ears.stereo_correlation(samples) < 0.97
    assert ears.band_share(samples, 10_000, 24_000) < 0.02
    assert ears.band_share(samples, 0, 60) < 0.35
    assert ears.band_share(samples, 250, 4000) > 0.15
    assert 400 < ears.centroid_hz(samples) < 4500


def test_a_song_ends_quietly_without_a_cut(render: Render, ears: Any) -> None:
    samples = render(30, seed=3)
    assert np.abs(samples[:, -1]).max() == 0
    assert ears.rms_db(samples[:, -RATE // 10 :]) < -45
    assert ears.rms_db(samples[:, -2 * RATE : -RATE]) > -50
    assert np.abs(samples[:, 0]).max() < 1e-4


def test_sections_differ_in_loudness_as_the_score_says(ask: Ask, render: Render, ears: Any) -> None:
    fields = {"lyrics": "[Intro]\n[Verse]\none\ntwo\n[Chorus]\nthree\nfour\n[Outro]", "seed": 9}
    score = compose(ask(40, **fields))
    samples = render(40, **fields)
    loud = {}
    for section in score.sections:
        begin, end = (round(score.seconds(b) * RATE) for b in (section.start_beat, section.end_beat))
        loud[section.kind] = ears.rms_db(samples[:, begin:end])
    assert 1.0 < loud[K.CHORUS] - loud[K.VERSE] < 6
    assert loud[K.VERSE] - loud[K.INTRO] > 1.5
    assert loud[K.CHORUS] - loud[K.OUTRO] > 2


def test_drums_are_heard_only_where_they_are_wanted(render: Render, ears: Any) -> None:
    with_drums, without = render(16, prompt="rock"), render(16, prompt="rock, no drums")
    assert ears.band_share(with_drums, 7000, 24_000) > 5 * ears.band_share(without, 7000, 24_000)


def test_tags_change_the_sound(render: Render, ears: Any) -> None:
    dark, bright = render(12, prompt="dark calm piano"), render(12, prompt="energetic metal")
    assert ears.centroid_hz(bright) > 1.5 * ears.centroid_hz(dark)
    flute, strings = render(12, prompt="pop with flute"), render(12, prompt="pop with strings")
    assert abs(np.corrcoef(flute[0], strings[0])[0, 1]) < 0.9


@pytest.mark.parametrize("name", sorted(TIMBRES))
def test_every_instrument_sounds_at_its_pitch_and_ends_at_zero(name: str) -> None:
    pitch = 40 if "bass" in name or name == "power_guitar" else 64
    wave = render_tone(name, pitch, 0.6, cut=1.0, vowel="a")
    assert torch.isfinite(wave).all()
    assert 0.01 < float(wave.abs().max()) < 1.5
    assert float(wave[:, -1].abs().max()) < 1e-4
    hz = 440 * 2 ** ((pitch - 69) / 12)
    bins = torch.fft.rfft(wave.mean(0)[2400:28_800], n=1 << 18).abs()
    peaks = [float(bins[round(hz * k * (1 << 18) / RATE) - 12 :][:24].max()) for k in (1, 2, 3, 4)]
    off = [float(bins[round(hz * k * (1 << 18) / RATE) - 12 :][:24].max()) for k in (1.37, 2.43)]
    assert max(peaks) > 5 * max(off)


def test_every_instrument_of_the_vocabulary_exists() -> None:
    assert set(INSTRUMENT_WORDS) <= set(TIMBRES)


def test_progress_is_smooth_and_never_falls(ask: Ask) -> None:
    seen = [step for step in render_steps(compose(ask(60))) if isinstance(step, float)]
    assert len(seen) >= 20
    assert seen == sorted(seen)
    assert 0 <= seen[0] < 0.1
    assert seen[-1] == 1.0
    assert max(b - a for a, b in pairwise(seen)) < 0.1


def test_the_engine_renders_reports_and_cancels(ask: Ask) -> None:
    with open_engine() as engine:
        short = engine.submit(ask(5, id="short"))
        long = engine.submit(ask(600, id="long"))
        assert short.future.result(PATIENCE_S).deterministic
        seen = list(_watch(long.future, lambda: long.progress))
        assert seen == sorted(seen)
        long.cancel()
        assert isinstance(long.future.exception(2.0), Canceled)
        assert engine.submit(ask(5, id="after")).future.result(PATIENCE_S).samples.shape == (2, 240_000)


def _watch(future: Future[Any], progress: Callable[[], float]) -> Iterator[float]:
    """Progress until a hundredth is done."""
    while not future.done() and progress() < 0.01:
        yield progress()
        wait([future], timeout=0.005)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match="nonsense"):
        open_engine(device="nonsense")
