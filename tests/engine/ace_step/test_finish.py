"""Songs end with the asked length and one loudness; a repaint leaves its source alone."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.ace_step.bundle import HOP
from engine.ace_step.finish import FADE_FRAMES, PEAK, finish, settle
from engine.ace_step.song import Condition, Injection, Song
from engine.errors import RenderFailed, Silent
from engine.schema import EngineRequest, Sound, Task, output_frames, result_fault
from tests.engine.ace_step.oracle import SECOND, a_request, a_sound

FADE = FADE_FRAMES * HOP


@pytest.mark.parametrize("seconds", [5.0, 5.12, 10.03, 0.5])
def test_a_song_has_exactly_the_asked_length(seconds: float) -> None:
    request = a_request(frames=round(seconds * SECOND))
    decoded = a_sound(12)
    result = finish(request, decoded)
    assert result.samples.shape == (2, round(seconds * SECOND))
    assert result.samples.flags.c_contiguous
    assert result_fault(result, request) is None
    assert (result.seed, result.sample_rate, result.deterministic) == (17, 48_000, False)


def test_a_song_is_brought_to_minus_one_decibel_once() -> None:
    """Only what is handed out counts: the tail that is cut off does not make the song quieter."""
    decoded = a_sound(6)
    decoded[:, -1] = 50.0
    result = finish(a_request(frames=5 * SECOND), decoded)
    assert np.abs(result.samples).max() == pytest.approx(10 ** (-1 / 20), rel=1e-6)
    ratio = result.samples / decoded[:, : 5 * SECOND]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


def test_what_was_decoded_is_left_as_it_was() -> None:
    decoded = torch.from_numpy(a_sound(6))
    before = decoded.clone()
    finish(a_request(), decoded)
    assert torch.equal(decoded, before)


@pytest.mark.parametrize("level", [0.0, 1e-5, 9e-4])
def test_near_silence_fails_and_is_not_amplified(level: float) -> None:
    """Pitfall 8."""
    with pytest.raises(Silent, match="silence"):
        finish(a_request(frames=SECOND), np.full((2, SECOND), level, dtype=np.float32))


def test_a_quiet_song_is_no_silence() -> None:
    result = finish(a_request(frames=SECOND), np.full((2, SECOND), -2e-3, dtype=np.float32))
    np.testing.assert_allclose(result.samples, -PEAK, rtol=1e-6)


def test_too_few_samples_fail() -> None:
    with pytest.raises(RenderFailed, match="100 samples were decoded and 48000 are wanted"):
        finish(a_request(frames=SECOND), np.ones((2, 100), dtype=np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_reaches_the_engines_own_check(value: float) -> None:
    decoded = a_sound(1)
    decoded[1, 30] = value
    request = a_request(frames=SECOND)
    assert result_fault(finish(request, decoded), request) == "the samples are not all finite"


class TestRepaint:
    """Pitfall 5. The "decoded" sound is the source, coloured as a decoder would, with other music inside."""

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            (1.0, 2.0),
            (0.0, 1.5),
            (2.5, None),
            (-1.0, 0.0),
            (3.0, 4.5),
            (-0.5, 1.0),
            (2.99, 4.0),
            (1.0, 1.001),
            (-1.000013, 0.7),
        ],
    )
    def test_every_sample_outside_the_window_is_the_sources_own(
        self, start: float, end: float | None
    ) -> None:
        source = a_sound(3)
        request = repaint(source, start, end)
        result = finish(request, rendered(request))
        assert result_fault(result, request) is None
        before = max(0, -round(start * SECOND))
        for place in range(0, 3 * SECOND, 7):
            if start * SECOND <= place < (3 if end is None else end) * SECOND:
                continue
            assert np.array_equal(result.samples[:, before + place], source[:, place])

    def test_the_middle_of_the_window_is_what_was_rendered(self) -> None:
        request = repaint(a_sound(3), 1.0, 2.0)
        decoded = rendered(request)
        result = finish(request, decoded).samples[:, SECOND + FADE : 2 * SECOND - FADE]
        ratio = result / decoded[:, SECOND + FADE : 2 * SECOND - FADE]
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)

    def test_the_source_fades_out_and_in_over_ten_frames_inside_the_window(self) -> None:
        source = np.full((2, 3 * SECOND), 0.5, dtype=np.float32)
        request = repaint(source, 1.0, 2.0)
        decoded = source.copy()
        decoded[:, SECOND : 2 * SECOND] = -0.3
        left = finish(request, decoded).samples[0]
        steps = np.diff(left)
        assert np.count_nonzero(steps[: SECOND - 1]) == np.count_nonzero(steps[2 * SECOND :]) == 0
        assert np.abs(steps).max() < 1.1 * 0.8 / FADE
        assert left[SECOND + FADE // 2] == pytest.approx(0.1, abs=1e-3)
        assert left[2 * SECOND - FADE // 2] == pytest.approx(0.1, abs=1e-3)
        np.testing.assert_allclose(left[SECOND + FADE : 2 * SECOND - FADE], -0.3, rtol=1e-5)

    def test_in_a_short_window_both_fades_meet_in_the_middle(self) -> None:
        source = np.full((2, 3 * SECOND), 0.5, dtype=np.float32)
        request = repaint(source, 1.0, 1.3)
        decoded = source.copy()
        decoded[:, SECOND : round(1.3 * SECOND)] = -0.3
        result = finish(request, decoded).samples[0]
        assert result[round(1.15 * SECOND)] == pytest.approx(-0.3, abs=1e-3)
        assert np.abs(np.diff(result)).max() < 1.1 * 0.8 / (0.15 * SECOND)

    @pytest.mark.parametrize(("start", "end", "border"), [(3.0, 4.0, 3 * SECOND), (-1.0, 0.0, SECOND)])
    def test_where_the_song_grows_no_step_is_heard(self, start: float, end: float, border: int) -> None:
        """The decoder misses the source by a fifth; put end to end, that would be a click."""
        time = np.arange(-2 * SECOND, 5 * SECOND) / SECOND
        music = (0.5 * np.cos(2 * np.pi * 110 * time)).astype(np.float32)
        source = np.stack([music[2 * SECOND : 5 * SECOND]] * 2)
        request = repaint(source, start, end)
        first = 2 * SECOND - max(0, -round(start * SECOND))
        decoded = np.stack([music[first : first + request.frames]] * 2) + np.float32(0.1)
        result = finish(request, decoded).samples[0]
        natural = np.abs(np.diff(music)).max()
        assert np.abs(np.diff(result[border - 50 : border + 50])).max() < 1.3 * natural

    @pytest.mark.parametrize("gain", [0.6, 1.5])
    def test_the_new_part_gets_the_sources_loudness_and_the_source_keeps_its_own(self, gain: float) -> None:
        source = a_sound(3)
        request = repaint(source, 1.0, 2.0)
        decoded = (a_sound(3) * gain).astype(np.float32)  # the decoder is off by the same factor everywhere
        result = finish(request, decoded).samples
        np.testing.assert_allclose(result, source, atol=1e-4)

    def test_the_new_part_is_no_louder_than_full_songs_are(self) -> None:
        source = a_sound(3)
        request = repaint(source, 1.0, 2.0)
        decoded = rendered(request)
        decoded[:, SECOND : 2 * SECOND] *= 20
        assert np.abs(finish(request, decoded).samples).max() <= max(PEAK, np.abs(source).max()) * 1.0001

    def test_a_measure_of_the_level_that_cannot_be_right_is_limited(self) -> None:
        source = (a_sound(3) * 1e-6).astype(np.float32)
        request = repaint(source, 1.0, 2.0)
        decoded = a_sound(3)
        middle = slice(SECOND + FADE, 2 * SECOND - FADE)
        result = finish(request, decoded).samples
        np.testing.assert_allclose(result[:, middle], decoded[:, middle] / 2, rtol=1e-5)

    def test_a_few_kept_samples_say_nothing_about_the_level(self) -> None:
        source = (a_sound(3) * 0.1).astype(np.float32)
        request = repaint(source, 0.1, None)
        decoded = (a_sound(3, seed=9) * 0.5).astype(np.float32)
        rest = slice(SECOND // 10 + FADE, 3 * SECOND)
        np.testing.assert_array_equal(finish(request, decoded).samples[:, rest], decoded[:, rest])

    def test_a_silent_source_leaves_the_new_part_as_rendered(self) -> None:
        request = repaint(np.zeros((2, 3 * SECOND), np.float32), 1.0, 2.0)
        decoded = (a_sound(3) * 0.5).astype(np.float32)
        middle = slice(SECOND + FADE, 2 * SECOND - FADE)
        np.testing.assert_array_equal(finish(request, decoded).samples[:, middle], decoded[:, middle])

    def test_a_window_over_everything_is_a_new_song(self) -> None:
        request = repaint(a_sound(3), 0.0, None)
        result = finish(request, rendered(request))
        assert np.abs(result.samples).max() == pytest.approx(PEAK, rel=1e-6)


class TestSettle:
    def test_a_song_without_a_kept_source_is_passed_on(self) -> None:
        latents = torch.ones(20, 4)
        assert settle(a_song(None), latents) is latents

    def test_the_source_is_put_back_over_ten_frames(self) -> None:
        keep = torch.ones(60, dtype=torch.bool)
        keep[25:35] = False
        settled = settle(a_song(keep), torch.ones(60, 4))[:, 0]
        assert settled[25:35].eq(1).all()
        assert settled[:15].eq(0).all()
        assert settled[45:].eq(0).all()
        assert settled[15:25].diff().gt(0).all()
        assert settled[35:45].diff().lt(0).all()
        torch.testing.assert_close(settled, settled.flip(0))
        assert settled[24] == pytest.approx(10 / 11)

    def test_a_window_at_an_end_has_one_border(self) -> None:
        keep = torch.ones(60, dtype=torch.bool)
        keep[:5] = False
        settled = settle(a_song(keep), torch.ones(60, 4))[:, 0]
        assert settled[:5].eq(1).all()
        assert settled[15:].eq(0).all()


def a_song(keep: torch.Tensor | None) -> Song:
    """A source of zeros, so that what is left of the rendered ones shows."""
    frames = 20 if keep is None else len(keep)
    return Song(
        id="song",
        noise=torch.zeros(frames, 4),
        context=torch.zeros(frames, 8),
        condition=Condition(torch.zeros(1, 1)),
        timesteps=(1.0,),
        injection=None if keep is None else Injection(source=torch.zeros(frames, 4), keep=keep, steps=1),
    )


def repaint(source: np.ndarray, start: float, end: float | None, **changes: Any) -> EngineRequest:
    frames = output_frames(Task.REPAINT, source_frames=source.shape[1], start=start, end=end)
    return a_request(
        task=Task.REPAINT,
        source=Sound(source),
        repainting_start=start,
        repainting_end=end,
        frames=frames,
        **changes,
    )


def rendered(request: EngineRequest) -> np.ndarray:
    """Whole latent frames, a little longer than the song: noise everywhere, and most of the source."""
    assert request.source is not None
    frames = -(-request.frames // HOP) * HOP
    sound = a_sound(frames / SECOND, seed=9)
    before = max(0, -round((request.repainting_start or 0.0) * SECOND))
    sound[:, before : before + request.source.frames] += 0.9 * request.source.samples
    return sound
