from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from gateway.audio import MASTER_SAMPLE_RATE as RATE
from gateway.audio import STEM_BOUNDS, QualityFailed, QualityReason, check_quality

SECONDS = 40
Samples = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def take(play: Callable[[int], Samples]) -> Samples:
    return play(SECONDS * RATE + 1_000)


def reason(samples: Samples, *, expected_frames: int | None = None) -> QualityReason:
    with pytest.raises(QualityFailed) as caught:
        check_quality(samples, sample_rate=RATE, expected_frames=expected_frames)
    return caught.value.reason


def with_silence(take: Samples, start_seconds: float, end_seconds: float) -> Samples:
    quiet = take.copy()
    quiet[:, int(start_seconds * RATE) : int(end_seconds * RATE)] *= 1e-4
    return quiet


def test_music_passes_and_is_measured(take: Samples) -> None:
    report = check_quality(take, sample_rate=RATE, expected_frames=SECONDS * RATE)
    assert (report.frames, report.channels, report.silent_share) == (take.shape[1], 2, 0)
    assert report.silent_tail_seconds == 0
    assert report.peak == pytest.approx(float(np.abs(take).max()))
    assert report.rms_dbfs == pytest.approx(10 * np.log10(np.mean(take.astype(np.float64) ** 2)), abs=0.01)


@pytest.mark.parametrize("factor", [0.96, 1.04])
def test_four_percent_off_in_length_pass(take: Samples, factor: float) -> None:
    check_quality(take, sample_rate=RATE, expected_frames=int(take.shape[1] / factor))


@pytest.mark.parametrize("factor", [0.94, 1.06])
def test_six_percent_off_in_length_fail(take: Samples, factor: float) -> None:
    assert reason(take, expected_frames=int(take.shape[1] / factor)) is QualityReason.LENGTH


def test_no_audio_fails() -> None:
    assert reason(np.zeros((2, 0), np.float32)) is QualityReason.LENGTH


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("frame", [0, 123_456, -1])
def test_one_sample_that_is_no_number_fails(take: Samples, value: float, frame: int) -> None:
    broken = take.copy()
    broken[1, frame] = value
    assert reason(broken) is QualityReason.NON_FINITE


def test_all_silence_fails() -> None:
    assert reason(np.zeros((2, RATE), np.float32)) is QualityReason.SILENCE


def test_a_few_frames_are_measured_too(play: Callable[[int], Samples]) -> None:
    assert check_quality(play(5), sample_rate=RATE, expected_frames=5).frames == 5


def test_a_long_rest_in_the_middle_passes(take: Samples) -> None:
    check_quality(with_silence(take, 5, 22), sample_rate=RATE, expected_frames=None)


def test_more_rest_than_music_fails(take: Samples) -> None:
    assert reason(with_silence(take, 5, 27)) is QualityReason.SILENCE


def test_a_fade_out_passes(take: Samples) -> None:
    check_quality(with_silence(take, SECONDS - 4.5, SECONDS + 1), sample_rate=RATE, expected_frames=None)


def test_a_song_that_stops_early_fails(take: Samples) -> None:
    assert reason(with_silence(take, SECONDS - 9, SECONDS + 1)) is QualityReason.SILENT_TAIL


def test_a_stem_may_rest_for_most_of_the_song(take: Samples) -> None:
    stem = with_silence(take, 2, SECONDS + 1)
    assert reason(stem) is QualityReason.SILENCE
    check_quality(stem, sample_rate=RATE, expected_frames=None, bounds=STEM_BOUNDS)


def test_peaks_at_full_scale_pass(take: Samples) -> None:
    report = check_quality(take / np.abs(take).max(), sample_rate=RATE, expected_frames=None)
    assert 0 < report.clipped_share < 1e-4


def test_an_overdriven_song_fails(take: Samples) -> None:
    assert reason(np.clip(take * 20, -1, 1)) is QualityReason.CLIPPING


def test_a_dc_offset_in_one_channel_fails(take: Samples) -> None:
    assert reason(take + np.float32([[0], [0.06]])) is QualityReason.DC_OFFSET
