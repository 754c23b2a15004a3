"""The composer's editing tasks: plausible to ears, exact where something must stay."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine import EngineRequest, Finished, Sound, Task
from engine.composer.listen import listen
from engine.composer.runner import ComposerRunner
from engine.variants import TRACK_NAMES

RATE = 48_000
Audio = NDArray[np.float32]
Ask = Callable[..., EngineRequest]


@pytest.fixture(name="edit")
def _edit(ask: Ask) -> Callable[..., Audio]:
    """Render an editing task; the source decides the length unless the test does."""

    def edit(task: str, source: Audio, *, frames: int | None = None, **fields: Any) -> Audio:
        seconds = (frames or source.shape[1]) / RATE
        request = ask(seconds, task=Task(task), source=Sound(source), **fields)
        events = ComposerRunner(threads=1).run([request], lambda _: True)
        return next(event.result.samples for event in events if isinstance(event, Finished))

    return edit


@pytest.fixture(name="pop")
def _pop(render: Callable[..., Audio]) -> Audio:
    return render(10.0, "pop song with drums", bpm=110, key_scale="A minor")


def test_tempo_and_key_of_a_source_are_heard(pop: Audio) -> None:
    heard = listen(torch.from_numpy(pop))
    assert min(abs(heard.bpm * factor - 110) for factor in (0.5, 1, 2)) <= 2
    assert heard.key.name in {"A minor", "C major"}


def test_silence_and_clicks_do_not_disturb_the_listener(edit: Callable[..., Audio]) -> None:
    click = np.zeros((2, 5 * RATE), np.float32)
    click[:, RATE] = 1.0
    for source in (np.zeros((2, 5 * RATE), np.float32), click, np.zeros((2, 100), np.float32)):
        assert np.isfinite(edit("cover", source)).all()


def test_a_cover_is_new_and_swells_with_its_source(edit: Callable[..., Audio], pop: Audio, ears: Any) -> None:
    source = pop * np.where(np.arange(pop.shape[1]) < 5 * RATE, 0.05, 1.0).astype(np.float32)
    cover = edit("cover", source, prompt="jazz trio")
    assert abs(np.corrcoef(cover[0], source[0])[0, 1]) < 0.2
    middle = 5 * RATE
    assert ears.rms_db(cover[:, middle:]) - ears.rms_db(cover[:, :middle]) > 3
    free = edit("cover", source, prompt="jazz trio", cover_strength=0.0)
    assert ears.rms_db(free[:, middle:]) - ears.rms_db(free[:, :middle]) < 3


def test_a_repaint_keeps_everything_outside_its_window_bit_for_bit(
    edit: Callable[..., Audio], pop: Audio
) -> None:
    song = edit("repaint", pop, repainting_start=4.0, repainting_end=6.0)
    inside = slice(4 * RATE, 6 * RATE)
    assert np.array_equal(song[:, : 4 * RATE], pop[:, : 4 * RATE])
    assert np.array_equal(song[:, 6 * RATE :], pop[:, 6 * RATE :])
    assert not np.allclose(song[:, inside], pop[:, inside], atol=0.01)
    assert np.abs(np.diff(song[:, 4 * RATE - 10 : 4 * RATE + 10])).max() < 0.2


def test_a_repaint_beyond_both_ends_makes_the_song_longer(edit: Callable[..., Audio], pop: Audio) -> None:
    song = edit("repaint", pop, frames=15 * RATE, repainting_start=-2.0, repainting_end=13.0)
    assert song.shape == (2, 15 * RATE)
    song = edit("repaint", pop, frames=12 * RATE, repainting_start=10.0, repainting_end=12.0)
    assert np.array_equal(song[:, : 10 * RATE], pop)
    assert np.abs(song[:, 10 * RATE :]).max() > 0.05


def test_extracted_bass_and_drums_lie_where_they_belong(
    edit: Callable[..., Audio], pop: Audio, ears: Any
) -> None:
    bass, drums = (edit("extract", pop, track_name=name) for name in ("bass", "drums"))
    assert ears.band_share(bass, 0, 300) > 0.9
    assert ears.band_share(drums, 3000, 24_000) > 2 * ears.band_share(pop, 3000, 24_000)


@pytest.mark.parametrize("track", TRACK_NAMES)
def test_every_track_can_be_added_and_is_heard(edit: Callable[..., Audio], pop: Audio, track: str) -> None:
    new = edit("lego", pop[:, : 5 * RATE], track_name=track)
    assert np.sqrt(np.mean(np.square(new))) > 0.005
    assert abs(np.corrcoef(new[0], pop[0, : 5 * RATE])[0, 1]) < 0.4


def test_a_completed_song_contains_its_source(edit: Callable[..., Audio], pop: Audio) -> None:
    whole = edit("complete", pop, track_classes=("strings",))
    assert np.corrcoef(whole[0], pop[0])[0, 1] > 0.5
    assert not np.allclose(whole, pop, atol=0.01)


def test_a_reference_gives_its_colour(render: Callable[..., Audio], ears: Any) -> None:
    rng = np.random.default_rng(1)
    hiss = rng.standard_normal((2, 5 * RATE)).astype(np.float32) * 0.1
    bright = render(5.0, "pop song", reference=Sound(hiss))
    assert ears.centroid_hz(bright) > 1.2 * ears.centroid_hz(render(5.0, "pop song"))


def test_edits_are_the_same_each_time(edit: Callable[..., Audio], pop: Audio) -> None:
    for task, fields in (("cover", {}), ("lego", {"track_name": "drums"})):
        assert np.array_equal(edit(task, pop, **fields), edit(task, pop, **fields))
