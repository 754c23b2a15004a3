"""From decoded sound to the finished song: exact length, one loudness, a repaint's source untouched.

The latents of a repaint are mended before they are decoded (`settle`), its samples after (`finish`).
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from engine.ace_step.bundle import HOP
from engine.ace_step.song import Song
from engine.ace_step.window import Window, window_of
from engine.errors import RenderFailed, Silent
from engine.schema import SAMPLE_RATE, EngineRequest, EngineResult, Task

PEAK: Final = 10 ** (-1 / 20)
"""-1 dBFS: what songs are brought to, once."""

SILENCE: Final = 1e-3
"""-60 dBFS: a model that stays below has failed, and amplifying it would hide that."""

FADE_FRAMES: Final = 10
"""Latent frames (0.4 s) over which old and new go into one another."""

_FADE: Final = FADE_FRAMES * HOP
_SEAM: Final = HOP
"""Samples over which a step is smoothed where there is no old sound to fade from."""

_HEARD: Final = 10 * SAMPLE_RATE
"""How much of the kept sound beside a window decides how loud the new sound has to be."""

_MOST_GAIN: Final = 2.0
"""The decoder is never so far off: beyond 6 dB the measure is wrong, not the level."""


def settle(song: Song, latents: torch.Tensor) -> torch.Tensor:
    """`latents` [T, D] of a finished song, ready to be decoded; those of a repaint get their source back.

    Only outside the window, and over ten frames (linearly) towards it: so the decoder hears the source on the
    other side of the border, and the new sound goes on from it.
    """
    injection = song.injection
    if injection is None:
        return latents
    inside = torch.nonzero(~injection.keep).flatten()
    places = torch.arange(len(latents), device=latents.device)
    away = torch.maximum(inside[0] - places, places - inside[-1]).clamp(min=0)
    new = (1 - away / (FADE_FRAMES + 1)).clamp(min=0)[:, None].to(latents.dtype)
    return new * latents + (1 - new) * injection.source.to(latents)


def finish(request: EngineRequest, samples: torch.Tensor | NDArray[np.float32]) -> EngineResult:
    """The result of `request`, of exactly `request.frames`, from decoded `samples` [2, at least as many].

    Brings the peak to -1 dBFS, except in a repaint: every sample outside its window is the source's own,
    and the new part is brought to the loudness that it has beside the window. Raises Silent, or RenderFailed
    for a song that is short. Samples that are not finite are passed on for the engine to find.
    """
    decoded = samples.detach().cpu().numpy() if isinstance(samples, torch.Tensor) else samples
    if decoded.shape[1] < request.frames:
        raise RenderFailed(f"{decoded.shape[1]} samples were decoded and {request.frames} are wanted")
    sound = np.array(decoded[:, : request.frames], dtype=np.float32, order="C")
    peak = _peak(sound)
    if peak < SILENCE:
        raise Silent("the model rendered silence")
    window = window_of(request) if request.task is Task.REPAINT else None
    if np.isfinite(peak):
        if window is not None and request.source is not None and (window.keeps_before or window.keeps_after):
            _splice(sound, request.source.samples, window)
        else:
            sound *= PEAK / peak
    return EngineResult(samples=sound, seed=request.seed, deterministic=False)


def _peak(sound: NDArray[np.float32]) -> float:
    """Largest absolute sample, 0 for none; NaN if any is. Needs no copy as large as the song."""
    return max(float(sound.max()), -float(sound.min())) if sound.size else 0.0


def _splice(sound: NDArray[np.float32], source: NDArray[np.float32], window: Window) -> None:
    """Make `sound` the source outside the window, and join both inside it."""
    start, end = window.start, window.end
    ceiling = max(PEAK, _peak(source))
    sound *= _gain(sound, source, window)
    loudest = _peak(sound[:, start:end])
    if loudest > ceiling:
        sound[:, start:end] *= ceiling / loudest
    most = end - start
    if window.keeps_before and window.keeps_after:
        most //= 2
    if window.keeps_before:
        _join(sound, source, offset=window.source_start, border=start, most=most, ceiling=ceiling)
    if window.keeps_after:
        # The other border is the same one, seen from the song's end.
        _join(
            sound[:, ::-1],
            source[:, ::-1],
            offset=sound.shape[1] - window.source_end,
            border=sound.shape[1] - end,
            most=most,
            ceiling=ceiling,
        )
    for first, last in _kept(window):
        sound[:, first:last] = source[:, first - window.source_start : last - window.source_start]


def _kept(window: Window) -> list[tuple[int, int]]:
    """The parts of the source that stay, on the result's clock."""
    parts = ((window.source_start, window.start), (window.end, window.source_end))
    return [(first, last) for first, last in parts if first < last]


def _gain(sound: NDArray[np.float32], source: NDArray[np.float32], window: Window) -> float:
    """What brings the decoded sound to the source's level, as heard where both are the same music.

    1 where there is too little to hear.
    """
    old = new = 0.0
    for first, last in _kept(window):
        # Only what lies beside the window: the last seconds before it, the first after it.
        if last == window.start:
            heard = slice(max(first, last - _HEARD), last)
        else:
            heard = slice(first, min(last, first + _HEARD))
        shifted = slice(heard.start - window.source_start, heard.stop - window.source_start)
        old += float(np.square(source[:, shifted], dtype=np.float64).sum())
        new += float(np.square(sound[:, heard], dtype=np.float64).sum())
    if min(old, new) == 0.0 or sum(last - first for first, last in _kept(window)) < _FADE:
        return 1.0
    return float(np.clip((old / new) ** 0.5, 1 / _MOST_GAIN, _MOST_GAIN))


def _join(
    sound: NDArray[np.float32],
    source: NDArray[np.float32],
    *,
    offset: int,
    border: int,
    most: int,
    ceiling: float,
) -> None:
    """Lead from the source, kept in front of `border`, into the new sound behind it, within `most` samples.

    `offset`: where the source begins. Inside the window the source's continuation fades out linearly: never
    louder than the louder of both. At the source's end nothing continues: there the difference to
    what was decoded is mirrored at the border and fades out, so that no step is heard.
    """
    room = min(_FADE, most, offset + source.shape[1] - border)
    if room >= min(_SEAM, most):
        new = _ramp(room)
        old = source[:, border - offset : border - offset + room]
        sound[:, border : border + room] = new * sound[:, border : border + room] + (1 - new) * old
        return
    length = min(_SEAM, most, border - offset)
    before = slice(border - length, border)
    difference = source[:, border - length - offset : border - offset] - sound[:, before]
    seam = sound[:, border : border + length] + (1 - _ramp(length)) * difference[:, ::-1]
    sound[:, border : border + length] = np.clip(seam, -ceiling, ceiling)


def _ramp(length: int) -> NDArray[np.float32]:
    """Rises from just above 0 to just below 1."""
    return (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(length)
