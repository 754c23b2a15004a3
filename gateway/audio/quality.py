"""Is this audio worth its price? Engines return broken audio as success; caught here, before anyone pays."""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.audio.errors import QualityFailed, QualityReason

_WINDOWS_PER_SECOND = 20
_WINDOWS_PER_BLOCK = 128
"""Bounds the scratch memory: 128 windows of 50 ms are 2.5 MB of 48 kHz stereo."""
_FULL_SCALE = 0.999
"""Just below 1, so that clipping is also seen in audio that went through 16 bits."""


class QualityBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What still passes. The defaults suit a whole song; STEM_BOUNDS a single track of one."""

    length_tolerance: float = 0.05
    silence_dbfs: float = -60.0
    silent_share: float = 0.5
    """Share of 50 ms windows whose RMS is below `silence_dbfs`."""
    silent_tail_seconds: float = 5.0
    silent_tail_share: float = 0.15
    """A tail is too long when it exceeds both bounds: a fade-out does not, a song that stopped early does."""
    clipped_share: float = 0.05
    """Loud masters touch full scale in well under 1 % of their samples, overdriven decoders in tens."""
    dc_offset: float = 0.05


STEM_BOUNDS = QualityBounds(silent_share=0.98, silent_tail_share=0.98)
"""An extracted or added track (extract, lego) rests for most of a song and may be done before its end."""
_SONG_BOUNDS = QualityBounds()


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of samples that passed, or would have been judged."""

    frames: int
    sample_rate: int
    channels: int
    peak: float
    rms_dbfs: float
    silent_share: float
    silent_tail_seconds: float
    clipped_share: float
    dc_offset: float


def check_quality(
    samples: npt.NDArray[np.float32],
    *,
    sample_rate: int,
    expected_frames: int | None,
    bounds: QualityBounds = _SONG_BOUNDS,
) -> QualityReport:
    """Judge float samples `[channels, frames]`, full scale +-1; `expected_frames` None: any length.

    Raises:
        QualityFailed: with the first reason found, in the order of QualityReason.
    """
    frames = samples.shape[1]
    wanted = frames if expected_frames is None else expected_frames
    if frames == 0 or abs(frames - wanted) > bounds.length_tolerance * wanted:
        message = f"{frames / sample_rate:.3f} s of audio instead of {wanted / sample_rate:.3f} s"
        raise QualityFailed(QualityReason.LENGTH, message)
    report = measure(samples, sample_rate=sample_rate, silence_dbfs=bounds.silence_dbfs)
    _judge(report, bounds)
    return report


def measure(
    samples: npt.NDArray[np.float32], *, sample_rate: int, silence_dbfs: float = -60.0
) -> QualityReport:
    """Measure without judging, except that QualityFailed is raised for samples that are no numbers."""
    channels, frames = samples.shape
    window = max(1, sample_rate // _WINDOWS_PER_SECOND)
    powers, sums, peak, clipped = [], np.zeros(channels), 0.0, 0
    for block in _blocks(samples, window):
        power, block_sums, block_peak = _measure_block(block)
        powers.append(power)
        sums += block_sums
        peak = max(peak, block_peak)
        if block_peak >= _FULL_SCALE:
            clipped += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))
    power = np.concatenate(powers)
    loud = np.flatnonzero(power >= 10 ** (silence_dbfs / 10))
    tail_windows = power.size - 1 - int(loud[-1]) if loud.size else power.size
    return QualityReport(
        frames=frames,
        sample_rate=sample_rate,
        channels=channels,
        peak=peak,
        rms_dbfs=10 * math.log10(max(float(power.mean()), 1e-20)),
        silent_share=1 - loud.size / power.size,
        silent_tail_seconds=min(tail_windows * window, frames) / sample_rate,
        clipped_share=clipped / samples.size,
        dc_offset=float(np.abs(sums).max()) / frames,
    )


def _blocks(samples: npt.NDArray[np.float32], window: int) -> list[npt.NDArray[np.float32]]:
    """Views `[channels, windows, window]`; what is left over at the end is one shorter window."""
    channels, frames = samples.shape
    whole, step = frames - frames % window, window * _WINDOWS_PER_BLOCK
    blocks = [
        samples[:, start : min(start + step, whole)].reshape(channels, -1, window)
        for start in range(0, whole, step)
    ]
    if whole < frames:
        blocks.append(samples[:, whole:].reshape(channels, 1, frames - whole))
    return blocks


def _measure_block(
    block: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Mean square per window, sum per channel, and peak; non-finite values surface in the squares."""
    with np.errstate(over="ignore", invalid="ignore"):
        power = np.vecdot(block, block).mean(axis=0) / np.float32(block.shape[2])
        peak = max(float(block.max()), -float(block.min()))
    if not np.isfinite(power).all():
        raise QualityFailed(QualityReason.NON_FINITE, "the audio has samples that are no finite numbers")
    return power, block.sum(axis=(1, 2)), peak


def _judge(report: QualityReport, bounds: QualityBounds) -> None:
    seconds = report.frames / report.sample_rate
    tail = report.silent_tail_seconds
    if report.silent_share > bounds.silent_share:
        message = f"{report.silent_share:.0%} of the audio is silence"
        raise QualityFailed(QualityReason.SILENCE, message)
    if tail > bounds.silent_tail_seconds and tail > bounds.silent_tail_share * seconds:
        raise QualityFailed(QualityReason.SILENT_TAIL, f"the last {tail:.1f} s are silence")
    if report.clipped_share > bounds.clipped_share:
        message = f"{report.clipped_share:.0%} of the samples are clipped"
        raise QualityFailed(QualityReason.CLIPPING, message)
    if report.dc_offset > bounds.dc_offset:
        raise QualityFailed(QualityReason.DC_OFFSET, f"the audio has a DC offset of {report.dc_offset:.3f}")
