"""All six tasks give the transformer what the pipeline gives it, except where the pipeline is wrong."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AceStepPipeline

from engine.ace_step.bundle import HOP, Bundle
from engine.ace_step.schedule import timesteps
from engine.ace_step.tasks import latent_frames, silence
from engine.errors import InvalidRequest
from engine.schema import EngineRequest, GuidanceType, InferMethod, Sound, Task
from tests.checkpoints.tiny import build_pipeline
from tests.engine.ace_step.conftest import as_bundle
from tests.engine.ace_step.oracle import FRAMES, SECOND, MeanVae, a_request, a_sound, caught, prepared

SOURCE = Sound(a_sound(FRAMES * HOP / SECOND))
CODES = [(place * 7919) % 64_000 for place in range(26)]
EDITS: dict[Task, dict[str, Any]] = {
    Task.TEXT2MUSIC: {},
    Task.COVER: {"source": SOURCE},
    Task.REPAINT: {"source": SOURCE, "repainting_start": 2.0, "repainting_end": 4.0},
    Task.EXTRACT: {"source": SOURCE, "track_name": "vocals"},
    Task.LEGO: {"source": SOURCE, "track_name": "drums"},
    Task.COMPLETE: {"source": SOURCE, "track_classes": ("drums", "bass")},
}


@pytest.mark.parametrize("task", Task)
def test_every_task_has_the_pipelines_noise_context_and_condition(
    base: AceStepPipeline, base_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    request = a_request(task=task, **EDITS[task])
    theirs = caught(base, request, monkeypatch)
    song = prepared(base_bundle, request)
    assert torch.equal(song.noise, theirs["hidden_states"][0])
    assert torch.equal(song.context, theirs["context_latents"][0])
    assert torch.equal(song.condition.hidden, theirs["encoder_hidden_states"][0])


def test_audio_codes_give_the_pipelines_context_and_condition(
    turbo: AceStepPipeline, turbo_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = caught(
        turbo,
        a_request(frames=130 * HOP),
        monkeypatch,
        audio_codes="".join(f"<|audio_code_{code}|>" for code in CODES),
    )
    song = prepared(turbo_bundle, a_request(frames=130 * HOP), codes=CODES)
    assert torch.equal(song.context, theirs["context_latents"][0])
    assert torch.equal(song.condition.hidden, theirs["encoder_hidden_states"][0])
    assert torch.equal(song.noise, theirs["hidden_states"][0])


def test_guidance_has_the_pipelines_null(
    base: AceStepPipeline, base_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = a_request(guidance_scale=4.0)
    theirs = caught(base, request, monkeypatch)
    song = prepared(base_bundle, request)
    assert song.guidance is not None
    assert torch.equal(song.guidance.null.hidden, theirs["encoder_hidden_states"][1])


@pytest.mark.parametrize(("count", "given"), [(10, 50), (40, 128)])
def test_codes_are_continued_by_silence_or_cut(turbo_bundle: Bundle, count: int, given: int) -> None:
    codes = (CODES * 2)[:count]
    song = prepared(turbo_bundle, a_request(), codes=codes)
    longer = prepared(turbo_bundle, a_request(frames=200 * HOP), codes=codes)
    assert song.frames == FRAMES
    assert torch.equal(song.context[:given, :8], longer.context[:given, :8])
    assert torch.equal(song.context[given:, :8], silence(turbo_bundle, FRAMES - given))
    assert song.context[:, 8:].eq(1).all()


def test_codes_beyond_the_book_are_taken_for_its_last(turbo_bundle: Bundle) -> None:
    beyond = prepared(turbo_bundle, a_request(), codes=[64_000, 10**6, -5])
    inside = prepared(turbo_bundle, a_request(), codes=[63_999, 63_999, 0])
    assert torch.equal(beyond.context, inside.context)


@pytest.mark.parametrize(
    ("kind", "steps", "scale"), [("turbo", 8, None), ("base", 50, 7.0), ("sft", 50, 7.0)]
)
def test_every_variant_has_its_own_defaults(
    turbo: AceStepPipeline, kind: str, steps: int, scale: float | None
) -> None:
    """The pipeline would take eight steps for base and sft as well."""
    song = prepared(as_bundle(turbo, kind), a_request())
    assert song.timesteps == timesteps(steps, 3.0)
    assert (song.guidance.scale if song.guidance else None) == scale
    assert song.guidance is None or song.guidance.kind is GuidanceType.APG
    assert song.sde_seed is None


def test_what_the_request_says_wins(base_bundle: Bundle) -> None:
    song = prepared(
        base_bundle,
        a_request(
            num_inference_steps=3,
            shift=1.5,
            guidance_scale=2.5,
            guidance_type=GuidanceType.ADG,
            cfg_interval=(0.2, 0.9),
            infer_method=InferMethod.SDE,
        ),
    )
    assert song.timesteps == timesteps(3, 1.5)
    assert song.guidance is not None
    assert (song.guidance.kind, song.guidance.scale) == (GuidanceType.ADG, 2.5)
    # Times, as asked for: the pipeline would mirror them.
    assert song.guidance.interval == (0.2, 0.9)
    assert song.sde_seed is not None
    own_times = prepared(base_bundle, a_request(timesteps=(0.9, 0.4)))
    assert own_times.timesteps == (0.9, 0.4)


def test_the_noise_of_later_steps_is_not_the_first_noise(turbo_bundle: Bundle) -> None:
    song = prepared(turbo_bundle, a_request(infer_method=InferMethod.SDE))
    assert song.sde_seed is not None
    fresh = torch.randn(1, FRAMES, 8, generator=torch.Generator().manual_seed(song.sde_seed))[0]
    assert not torch.equal(fresh, song.noise)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_scale_up_to_one_asks_for_no_guidance(base_bundle: Bundle, scale: float) -> None:
    assert prepared(base_bundle, a_request(guidance_scale=scale)).guidance is None


def test_a_negative_prompt_takes_the_place_of_the_null(base_bundle: Bundle) -> None:
    plain = prepared(base_bundle, a_request()).guidance
    negative = prepared(base_bundle, a_request(negative_prompt="harsh noise")).guidance
    other = prepared(base_bundle, a_request(negative_prompt="dull drums")).guidance
    assert plain is not None
    assert negative is not None
    assert other is not None
    assert plain.null.hidden.unique(dim=0).shape[0] == 1
    assert negative.null.hidden.unique(dim=0).shape[0] > 1
    assert not torch.equal(negative.null.hidden[-60:], other.null.hidden[-60:])


@pytest.mark.parametrize(
    ("seconds", "frames"), [(5.0, 128), (5.12, 128), (5.13, 129), (10.0, 250), (10.03, 251)]
)
def test_a_song_has_the_latents_that_cover_it_and_never_fewer_than_the_models_know(
    turbo_bundle: Bundle, seconds: float, frames: int
) -> None:
    asked = round(seconds * SECOND)
    assert latent_frames(asked) == frames
    song = prepared(turbo_bundle, a_request(frames=asked))
    assert song.noise.shape == (frames, 8)
    assert song.context.shape == (frames, 16)


def test_the_same_request_is_prepared_to_the_same_bits(base_bundle: Bundle) -> None:
    """Pitfall 4: the pipeline draws sources from the global generator."""
    request = a_request(task=Task.COVER, source=SOURCE, cover_strength=0.5, cover_noise_strength=0.3)
    songs = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            songs.append(prepared(base_bundle, request))
    first, again = songs
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.start, again.start)


def test_noise_belongs_to_the_seed_alone(turbo_bundle: Bundle) -> None:
    """Pitfall 13: drawn on the CPU in float32, so that no device and no neighbour changes it."""
    song = prepared(turbo_bundle, a_request(seed=4))
    drawn = torch.randn(1, FRAMES, 8, generator=torch.Generator().manual_seed(4))[0]
    assert torch.equal(song.noise, drawn)
    assert not torch.equal(prepared(turbo_bundle, a_request(seed=5)).noise, drawn)


def test_silence_goes_on_beyond_what_the_checkpoint_holds(turbo_bundle: Bundle) -> None:
    """Pitfall 14."""
    known = turbo_bundle.condition_encoder.silence_latent[0]
    long = silence(turbo_bundle, 15_100)
    assert long.shape == (15_100, 8)
    assert torch.equal(long[:15_000], known)
    assert torch.equal(long[15_000:], known[:100])


class TestCover:
    """Pitfall 6: the pipeline blends two velocities; the models' own code lets go of the source at a step."""

    def test_follows_its_source_to_the_end_unless_told_otherwise(self, base_bundle: Bundle) -> None:
        for strength in (None, 1.0):
            assert prepared(base_bundle, cover(cover_strength=strength)).switch is None

    @pytest.mark.parametrize(("strength", "step"), [(0.5, 5), (0.99, 9), (0.19, 1), (0.0, 0)])
    def test_becomes_a_text2music_at_a_step(self, base_bundle: Bundle, strength: float, step: int) -> None:
        song = prepared(base_bundle, cover(cover_strength=strength, num_inference_steps=10))
        free = prepared(base_bundle, a_request())
        assert song.switch is not None
        assert song.switch.step == step
        assert torch.equal(song.switch.context, free.context)
        assert torch.equal(song.switch.condition.hidden, free.condition.hidden)
        assert not torch.equal(song.context, free.context)

    def test_starts_from_a_noisy_source_at_the_nearest_time(self, base_bundle: Bundle) -> None:
        whole = prepared(base_bundle, cover(num_inference_steps=8))
        song = prepared(base_bundle, cover(num_inference_steps=8, cover_noise_strength=0.3))
        source = prepared(base_bundle, a_request(task=Task.EXTRACT, **EDITS[Task.EXTRACT])).context[:, :8]
        t = song.timesteps[0]
        assert t == min(whole.timesteps, key=lambda time: abs(time - 0.7))
        assert song.timesteps == whole.timesteps[whole.timesteps.index(t) :]
        assert song.start is not None
        torch.testing.assert_close(song.start, t * whole.noise + (1 - t) * source, atol=0, rtol=0)
        assert torch.equal(song.noise, whole.noise)

    def test_counts_its_strength_on_the_steps_that_are_left(self, base_bundle: Bundle) -> None:
        request = cover(num_inference_steps=8, cover_noise_strength=0.4, cover_strength=0.5)
        song = prepared(base_bundle, request)
        assert song.switch is not None
        assert song.switch.step == len(song.timesteps) // 2 < 4

    def test_starts_from_noise_alone_unless_told_otherwise(self, base_bundle: Bundle) -> None:
        for strength in (None, 0.0):
            song = prepared(base_bundle, cover(cover_noise_strength=strength))
            assert song.start is None
            assert len(song.timesteps) == 50

    def test_without_audio_tokenizers_names_the_remedy(self) -> None:
        bundle = as_bundle(build_pipeline("turbo", tokenizers=False), "turbo")
        for request, codes in ((cover(), None), (a_request(), CODES)):
            with pytest.raises(InvalidRequest, match=r"without audio tokenizers.*donor"):
                prepared(bundle, request, codes=codes)
        prepared(bundle, a_request(task=Task.REPAINT, **EDITS[Task.REPAINT]))


class TestRepaint:
    """Pitfall 5: the pipeline neither keeps the rest nor grows."""

    def test_puts_its_source_back_for_the_first_half_of_the_steps(self, base_bundle: Bundle) -> None:
        song = prepared(base_bundle, repaint(2.0, 4.0))
        source = prepared(base_bundle, a_request(task=Task.EXTRACT, **EDITS[Task.EXTRACT])).context[:, :8]
        assert song.injection is not None
        assert song.injection.steps == 25
        assert torch.equal(song.injection.source, source)
        assert kept(song.injection.keep) == [(0, 50), (100, FRAMES)]

    def test_has_an_explicit_mask(self, base_bundle: Bundle) -> None:
        """Pitfall 17: a mask that the model may choose would be 1 (or 2) everywhere."""
        mask = prepared(base_bundle, repaint(2.0, 4.0)).context[:, 8:]
        assert mask[50:100].eq(1).all()
        assert mask[:50].eq(0).all()
        assert mask[100:].eq(0).all()

    def test_renews_every_latent_that_the_window_touches(self, base_bundle: Bundle) -> None:
        song = prepared(base_bundle, repaint(2.01, 3.99))
        assert song.injection is not None
        assert kept(song.injection.keep) == [(0, 50), (100, FRAMES)]

    @pytest.mark.parametrize(
        ("start", "end", "seconds", "parts"),
        [
            (-2.0, 0.0, 5.2, [(50, 130)]),
            (3.2, 5.2, 5.2, [(0, 80)]),
            (-1.0, 4.2, 5.2, []),
            (-2.0, 1.0, 5.2, [(75, 130)]),
            (2.0, 5.2, 5.2, [(0, 50)]),
            (4.0, 5.2, 5.2, [(0, 80)]),
            (-2.0, -1.0, 5.2, [(50, 130)]),
            (3.0, None, 3.2, [(0, 75), (80, FRAMES)]),
        ],
    )
    def test_makes_everything_outside_the_source_anew(
        self,
        base_bundle: Bundle,
        start: float,
        end: float | None,
        seconds: float,
        parts: list[tuple[int, int]],
    ) -> None:
        request = repaint(start, end, source=Sound(a_sound(3.2)), frames=round(seconds * SECOND))
        song = prepared(base_bundle, request)
        assert song.frames == latent_frames(round(seconds * SECOND))
        assert kept(song.context[:, 8] == 0) == parts
        silent = song.context[:, 8] == 1
        assert torch.equal(song.context[silent, :8], silence(base_bundle, song.frames)[silent])
        assert (song.injection is None) == (not parts)

    def test_finds_its_source_where_the_song_has_grown_in_front(self, base_bundle: Bundle) -> None:
        vae = MeanVae(base_bundle.vae)
        plain = prepared(base_bundle, repaint(5.0, None), vae=vae).context
        grown = prepared(base_bundle, repaint(-2.0, 0.0, frames=FRAMES * HOP + 2 * SECOND), vae=vae).context
        # Farther from the borders than the encoder hears.
        torch.testing.assert_close(grown[60:160, :8], plain[10:110, :8], atol=1e-5, rtol=0)

    def test_of_another_length_than_its_window_makes_is_refused(self, base_bundle: Bundle) -> None:
        with pytest.raises(InvalidRequest, match="frames: this repaint is 384000 frames long, not 245760"):
            prepared(base_bundle, repaint(5.12, 8.0))

    def test_without_anything_in_its_window_is_refused(self, base_bundle: Bundle) -> None:
        with pytest.raises(InvalidRequest, match="repainting_end"):
            prepared(base_bundle, repaint(6.5, None))


def test_a_shorter_source_goes_on_in_silence(base_bundle: Bundle) -> None:
    request = a_request(task=Task.EXTRACT, source=Sound(a_sound(2)), track_name="vocals", frames=2 * SECOND)
    song = prepared(base_bundle, request)
    assert song.frames == 128
    assert torch.equal(song.context[50:, :8], silence(base_bundle, 78))
    assert song.context[:, 8:].eq(1).all()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"task": Task.LEGO, "source": SOURCE, "track_name": "drums"}, "task"),
        ({"num_inference_steps": 21}, "num_inference_steps"),
        ({"repainting_start": 1.0}, "repainting_start"),
        ({"timesteps": (0.5, 0.9)}, "timesteps"),
        ({"cover_noise_strength": 0.5}, "cover_noise_strength"),
    ],
)
def test_what_a_variant_cannot_do_is_refused_here_too(
    turbo_bundle: Bundle, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        prepared(turbo_bundle, a_request(**changes))


def test_what_has_no_effect_is_not_refused(turbo_bundle: Bundle) -> None:
    song = prepared(turbo_bundle, a_request(guidance_scale=7.0, negative_prompt="noise"))
    assert song.guidance is None


def test_codes_and_a_source_do_not_go_together(base_bundle: Bundle) -> None:
    with pytest.raises(InvalidRequest, match="codes"):
        prepared(base_bundle, cover(), codes=CODES)
    with pytest.raises(InvalidRequest, match="codes"):
        prepared(base_bundle, a_request(), codes=[])


def cover(**changes: Any) -> EngineRequest:
    return a_request(task=Task.COVER, source=SOURCE, **changes)


def repaint(start: float, end: float | None, **changes: Any) -> EngineRequest:
    values = {"source": SOURCE, "repainting_start": start, "repainting_end": end, **changes}
    return a_request(task=Task.REPAINT, **values)


def kept(keep: torch.Tensor) -> list[tuple[int, int]]:
    """Runs of True, as first and one past the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], keep.int().numpy(), [0]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
