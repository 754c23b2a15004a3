"""Whole plans, from the ask to the codes."""

from collections.abc import Iterator

import pytest
import torch
from diffusers import AceStepPipeline
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from engine.ace_step.bundle import Bundle
from engine.ace_step.planner import (
    FormatAsk,
    PlanFailed,
    Planned,
    Planner,
    Planning,
    SampleAsk,
    Sampling,
    UnderstandAsk,
    Wishes,
    Written,
    codes_of,
)
from engine.ace_step.planner.asks import LANGUAGES
from engine.ace_step.planner.metadata import Metadata, code_text, parse_thought
from engine.errors import InvalidRequest, NotLoaded
from tests.checkpoints.tiny_planner import CODES
from tests.engine.ace_step.planner.conftest import ask, plans


def test_ten_seconds_are_fifty_codes_that_render_ten_seconds(
    planner: Planner, turbo: AceStepPipeline
) -> None:
    plan = plans(planner, [ask(seconds=10.0)])["a"]
    assert len(plan.codes) == 50
    assert all(0 <= code < CODES for code in plan.codes)
    assert plan.frames == 480_000
    audio = turbo(
        prompt=plan.caption,
        lyrics="",
        audio_codes=code_text(plan.codes),
        num_inference_steps=1,
        output_type="latent",
    ).audios
    assert audio.shape[1] == 250


@pytest.mark.parametrize(("seconds", "codes"), [(1.0, 5), (2.39, 11), (4.2, 21), (8.6, 43)])
def test_a_song_has_as_many_codes_as_fit_into_it(planner: Planner, seconds: float, codes: int) -> None:
    assert len(plans(planner, [ask(seconds=seconds)])["a"].codes) == codes


def test_an_open_length_is_chosen_within_its_bounds(planner: Planner) -> None:
    plan = plans(planner, [ask(seconds=None, min_seconds=3, max_seconds=4)])["a"]
    assert plan.duration_s in (3.0, 4.0)
    assert len(plan.codes) == 5 * plan.duration_s


def test_wishes_hold_in_the_plan(planner: Planner) -> None:
    wishes = Wishes(bpm=77, key_scale="Gb minor", time_signature=6, vocal_language="yue", duration_s=1.0)
    plan = plans(planner, [ask(wishes=wishes, write_caption=False)])["a"]
    assert (plan.bpm, plan.key_scale, plan.time_signature, plan.language) == (77, "Gb minor", 6, "yue")
    assert plan.caption == "slow piano ballad"


def test_a_seed_decides_everything(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    first, second = (Planner(model, tokenizer, caption_tokens=8) for _ in range(2))
    assert plans(first, [ask(seed=7)]) == plans(second, [ask(seed=7)])
    assert plans(first, [ask(seed=7)])["a"].codes != plans(first, [ask(seed=8)])["a"].codes


def test_neighbours_change_nothing(planner: Planner) -> None:
    asks = [
        ask("a", seconds=2.0, seed=1),
        ask("b", seconds=4.0, seed=1, caption="pop", lyrics="", negative_prompt="noise, hum and hiss"),
        ask("c", seconds=1.0, seed=9, sampling=Sampling(guidance_scale=1.0)),
        ask("d", seconds=3.0, seed=5, sampling=Sampling(temperature=0.5, top_p=0.7, repetition_penalty=1.3)),
        ask("e", seconds=None, min_seconds=1, max_seconds=3, instrumental=True, write_caption=False),
    ]
    alone = {}
    for one in asks:
        planner._thoughts.clear()
        alone |= plans(planner, [one])
    planner._thoughts.clear()
    assert plans(planner, asks) == alone
    assert len(alone) == 5


def test_variations_share_their_metadata_and_not_their_codes(planner: Planner) -> None:
    asks = [ask(name, seed=seed, plan_seed=3, seconds=1.0) for name, seed in (("a", 3), ("b", 4))]
    both = plans(planner, asks)
    assert both["a"].codes != both["b"].codes
    assert (both["a"].caption, both["a"].bpm) == (both["b"].caption, both["b"].bpm)
    # A later one remembers: all of its progress lies in the second phase.
    later = list(planner.plan([ask("c", seed=5, plan_seed=3, seconds=1.0)], wanted=lambda _: True))
    assert all(event.fraction > 0.1 for event in later if isinstance(event, Planning))
    assert both == {name: plan for one in asks for name, plan in plans(planner, [one]).items()}


def test_a_caption_may_spell_the_end_of_a_thought(
    planner: Planner, tokenizer: PreTrainedTokenizerFast
) -> None:
    letters = [token for part in ("a ", "<", "/think", "> ", "b") for token in tokenizer.encode(part)]
    before, after = tokenizer.encode("<think>\nbpm: 90\ncaption: "), tokenizer.encode("\nduration: 30\n")
    tokens = [*before, *letters, *after, *tokenizer.encode("</think>\n\n# Lyric\nhi<|im_end|>")]
    thought, sung = planner._halves(tokens)
    assert parse_thought(thought) == Metadata(bpm=90, caption="a </think> b", duration=30)
    assert sung == "\n\n# Lyric\nhi"


def test_only_so_many_thoughts_are_kept(planner: Planner) -> None:
    for seed in range(3):
        planner._remember({planner._lines.thinking(ask(seed=seed * 100 + n)): None for n in range(30)})
    assert len(planner._thoughts) == 64


def test_progress_comes_at_every_token_and_only_rises(planner: Planner) -> None:
    events = list(planner.plan([ask("a"), ask("b", seed=2)], wanted=lambda _: True))
    for name in ("a", "b"):
        steps = [event.fraction for event in events if isinstance(event, Planning) and event.id == name]
        assert len(steps) > 10
        assert steps == sorted(steps)
        assert 0 < steps[0] < 0.1 < steps[-1] < 1


@pytest.mark.parametrize("until", [0.0, 0.01, 0.3])
def test_a_cancelled_ask_leaves_and_the_others_do_not_notice(planner: Planner, until: float) -> None:
    """Before anything, while metadata is written, and while codes are."""
    asks = [ask("a", seed=4), ask("b", seed=5)]
    expected = plans(planner, [asks[0]])["a"]
    planner._thoughts.clear()
    fractions = [0.0]
    ended = []
    for event in planner.plan(asks, wanted=lambda id_: id_ == "a" or max(fractions) < until):
        if isinstance(event, Planning):
            fractions.append(event.fraction)
        else:
            ended.append(event)
    assert ended == [Planned("a", expected)]


def test_a_closed_iterator_leaves_a_planner_that_works(planner: Planner) -> None:
    expected = plans(planner, [ask(seed=6)])
    planner._thoughts.clear()
    events: Iterator[object] = planner.plan([ask(seed=6)], wanted=lambda _: True)
    for _ in range(5):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert plans(planner, [ask(seed=6)]) == expected


def test_what_does_not_fit_into_the_context_fails_alone(planner: Planner) -> None:
    asks = [ask("long", lyrics="la " * 4000), ask("short", seconds=1.0)]
    events = [event for event in planner.plan(asks, wanted=lambda _: True) if not isinstance(event, Planning)]
    assert [type(event) for event in events] == [PlanFailed, Planned]
    assert isinstance(events[0].error, InvalidRequest)
    assert "4096 tokens" in str(events[0].error)


def test_long_lyrics_shorten_the_longest_song(planner: Planner) -> None:
    short, long = (planner._lines.thinking(ask(seconds=None, lyrics="la " * n)) for n in (10, 800))
    assert short.seconds == (10, 600)
    assert 10 < long.seconds[1] < 600
    room = 4096 - len(planner._prompts.encode(planner._prompts.thought(long.caption, long.lyrics)))
    assert long.seconds[1] * 5 < room


def test_asks_out_of_range_are_refused() -> None:
    for make in (
        lambda: Wishes(bpm=29),
        lambda: Wishes(key_scale="H major"),
        lambda: Wishes(time_signature=5),
        lambda: Wishes(vocal_language="xx"),
        lambda: Wishes(duration_s=601.0),
        lambda: Wishes(duration_s=float("nan")),
        lambda: ask(min_seconds=20, max_seconds=19),
        lambda: Sampling(top_p=0.0),
        lambda: Sampling(temperature=float("nan")),
    ):
        with pytest.raises(InvalidRequest):
            make()


def test_songs_in_words_come_out_of_one_batch_as_they_do_alone(planner: Planner) -> None:
    asks = (
        FormatAsk(id="f", caption="ballad", lyrics="la la", wishes=Wishes(bpm=90, duration_s=30.5), seed=1),
        SampleAsk(id="s", query="something sad", instrumental=True, seed=2),
        UnderstandAsk(id="u", codes=tuple(range(40)), seed=3),
    )
    events = planner.write(asks, wanted=lambda _: True)
    together = {event.id: event.description for event in events if isinstance(event, Written)}
    assert together == {
        "f": planner.format_input(asks[0]),
        "s": planner.create_sample(asks[1]),
        "u": planner.understand(asks[2]),
    }
    assert (together["f"].bpm, together["f"].duration_s) == (90, 30.5)
    for description in together.values():
        assert 30 <= description.bpm <= 300
        assert description.language in LANGUAGES
        assert "<|" not in description.lyrics


def test_too_many_codes_to_understand_are_refused(planner: Planner) -> None:
    with pytest.raises(InvalidRequest) as caught:
        planner.understand(UnderstandAsk(id="u", codes=(1,) * 4000))
    assert str(caught.value).startswith("codes: ")


def test_sound_has_five_codes_a_second(turbo_bundle: Bundle) -> None:
    latents = torch.randn(52, turbo_bundle.channels, generator=torch.Generator().manual_seed(1))
    codes = codes_of(turbo_bundle, latents)
    assert len(codes) == 11
    assert codes[:10] == codes_of(turbo_bundle, latents[:50])
    assert len(set(codes)) > 1
    silence = turbo_bundle.condition_encoder.silence_latent[0, :3]
    assert codes == codes_of(turbo_bundle, torch.cat([latents, silence]))


def test_codes_need_an_audio_tokenizer(turbo_bundle: Bundle) -> None:
    fields = {name: getattr(turbo_bundle, name) for name in turbo_bundle.__struct_fields__}
    with pytest.raises(NotLoaded) as caught:
        codes_of(Bundle(**fields | {"audio_tokenizer": None}), torch.zeros(5, turbo_bundle.channels))
    assert "audio tokenizer" in str(caught.value)


def test_the_cache_is_measured_in_bytes(planner: Planner, model: Qwen3ForCausalLM) -> None:
    cache = model(torch.zeros(1, 7, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert planner.cache_bytes_per_token * 7 == held
