"""The loop against a loop without cache, batch and padding, and fixed buffers against growing ones."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from engine.ace_step.planner import Planner, Sampling, Wishes
from engine.ace_step.planner.automaton import Automaton, Codes, thought
from engine.ace_step.planner.decoding import Ended, Line, decode
from engine.ace_step.planner.steps import DynamicSteps, StaticSteps, StepsPool
from engine.ace_step.planner.vocabulary import Vocabulary
from tests.engine.ace_step.planner.conftest import ask, plans

PROMPTS = ([5, 6, 7], [300, 301, 302, 303, 304, 305, 306], [42])


def lines(vocabulary: Vocabulary, scale: float = 2.0) -> list[Line]:
    greedy = Sampling(temperature=0.0, guidance_scale=scale)
    shapes = (
        [Codes(vocabulary, count=6)],
        thought(vocabulary, Wishes(), seconds=(10, 600), caption_tokens=4),
        [Codes(vocabulary, count=3)],
    )
    return [
        Line(
            id=str(number),
            prompt=list(prompt),
            unconditional=None if number == 2 else [9, *prompt[1:2]],
            automaton=Automaton(parts),
            sampling=greedy,
            seed=number,
            room=200,
        )
        for number, (prompt, parts) in enumerate(zip(PROMPTS, shapes, strict=True))
    ]


@torch.no_grad()
def naive(model: Qwen3ForCausalLM, line: Line) -> list[int]:
    """The whole text again at every token, one branch after the other."""
    while (choice := line.automaton.choice) is not None:
        scores = model(torch.tensor([line.prompt + line.tokens])).logits[0, -1]
        if line.unconditional is not None:
            null = model(torch.tensor([line.unconditional + line.tokens])).logits[0, -1]
            scores = null + line.sampling.guidance_scale * (scores - null)
        line.take(int(choice.ids[scores[choice.ids].argmax()]))
    return line.tokens


@pytest.mark.parametrize("static", [False, True])
def test_a_padded_cached_batch_writes_what_a_naive_loop_writes(
    model: Qwen3ForCausalLM, vocabulary: Vocabulary, *, static: bool
) -> None:
    pool = StepsPool(model, static=static)
    events = decode(pool, lines(vocabulary), lambda _: True)
    written = {event.id: event.tokens for event in events if isinstance(event, Ended)}
    assert written == {line.id: naive(model, line) for line in lines(vocabulary)}


def test_guidance_changes_what_is_written(model: Qwen3ForCausalLM, vocabulary: Vocabulary) -> None:
    guided, bare = (naive(model, lines(vocabulary, scale)[0]) for scale in (2.0, 1.0))
    assert guided != bare


def test_fixed_buffers_score_as_growing_ones_do(model: Qwen3ForCausalLM) -> None:
    """Twice with the same buffers, with rows that leave on the way and rows that nobody uses."""
    fixed = StaticSteps(model, rows=4, length=24)
    for shift in (0, 1):
        prompts = [[token + shift for token in prompt] for prompt in PROMPTS]
        growing = DynamicSteps(model)
        torch.testing.assert_close(fixed.prefill(prompts), growing.prefill(prompts), rtol=0, atol=1e-5)
        torch.testing.assert_close(fixed.step([1, 2, 3]), growing.step([1, 2, 3]), rtol=0, atol=1e-5)
        for steps in (fixed, growing):
            steps.keep([0, 2])
        torch.testing.assert_close(fixed.step([4, 5]), growing.step([4, 5]), rtol=0, atol=1e-5)
        for steps in (fixed, growing):
            steps.keep([1])
        torch.testing.assert_close(fixed.step([6]), growing.step([6]), rtol=0, atol=1e-5)


def test_long_prompts_are_read_in_chunks_that_do_not_show(model: Qwen3ForCausalLM) -> None:
    prompts = [[7 + place % 400 for place in range(1100)], [8] * 700, [9] * 3]
    with torch.no_grad():
        whole = [model(torch.tensor([prompt])).logits[0, -1] for prompt in prompts]
    expected = torch.stack(whole)
    for steps in (DynamicSteps(model), StaticSteps(model, rows=3, length=1101)):
        torch.testing.assert_close(steps.prefill(prompts), expected, rtol=0, atol=1e-4)


def test_plans_are_the_same_with_fixed_buffers(
    planner: Planner, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    static = Planner(model, tokenizer, static=True, caption_tokens=6, lyric_tokens=8)
    asks = [ask("a", seconds=1.0), ask("b", seconds=2.0, seed=4, lyrics="la"), ask("c", seconds=1.5, seed=2)]
    assert plans(static, asks) == plans(planner, asks)


def test_a_captured_step_is_used_for_every_token_and_kept(model: Qwen3ForCausalLM) -> None:
    captured: list[Callable[[], torch.Tensor]] = []
    replays = 0

    def capture(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def replay() -> torch.Tensor:
            nonlocal replays
            replays += 1
            return step()

        captured.append(step)
        return replay

    pool = StepsPool(model, static=True, capture=capture)
    pool.give_back(pool.take(rows=3, length=20))
    captured.clear()  # of the trial before the first batch
    replays = 0
    for _ in range(2):
        steps = pool.take(rows=3, length=20)
        steps.prefill(PROMPTS)
        steps.step([1, 2, 3])
        steps.step([1, 2, 3])
        pool.give_back(steps)
    assert (len(captured), replays) == (1, 4)
    assert isinstance(steps, StaticSteps)
    assert (steps.rows, steps.length) == (4, 512)


def test_fixed_buffers_that_say_something_else_are_switched_off(model: Qwen3ForCausalLM) -> None:
    def stale(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        first = step()
        return lambda: first

    assert isinstance(StepsPool(model, static=True, capture=stale).take(rows=2, length=10), DynamicSteps)
    assert isinstance(StepsPool(model, static=True).take(rows=2, length=10), StaticSteps)


def test_buffers_in_use_are_not_lent_twice(model: Qwen3ForCausalLM) -> None:
    pool = StepsPool(model, static=True)
    first = pool.take(rows=2, length=10)
    assert pool.take(rows=2, length=10) is not first
    pool.give_back(first)
    assert pool.take(rows=2, length=10) is first


def test_a_cpu_takes_buffers_that_grow(model: Qwen3ForCausalLM) -> None:
    assert isinstance(StepsPool(model).take(rows=2, length=10), DynamicSteps)
