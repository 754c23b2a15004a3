"""A planner's step over fixed buffers, as it is recorded, gives what a growing cache gives."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from engine.ace_step.fast import Recorder, capture
from engine.ace_step.fast.graphs import GraphedStep
from engine.ace_step.planner.steps import Advance, DynamicSteps, StaticSteps
from tests.engine.ace_step.fast.conftest import CPU, Waits

PROMPTS = [[3, 9, 27, 81, 43], [5, 25]]
TOKENS = [(7, 8), (49, 64), (43, 12), (1, 96)]


@pytest.fixture(scope="module", name="model")
def _model() -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Qwen3ForCausalLM(config).eval()


@torch.inference_mode()
def test_a_step_that_was_rehearsed_goes_on_as_if_it_were_not(model: Qwen3ForCausalLM) -> None:
    recorder = Recorder(CPU)
    made: list[GraphedStep] = []

    def graphed(step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        made.append(capture(recorder)(step))
        made[0]._rehearse()  # what a recording does first, twice
        made[0]._rehearse()
        return made[0]

    growing, fixed = DynamicSteps(model), StaticSteps(model, rows=2, length=32, capture=graphed)
    torch.testing.assert_close(fixed.prefill(PROMPTS), growing.prefill(PROMPTS), rtol=0, atol=1e-5)
    for tokens in TOKENS:
        torch.testing.assert_close(fixed.step(tokens), growing.step(tokens), rtol=0, atol=1e-5)
        made[0]._rehearse()
    assert len(made) == 1


def test_buffers_that_were_made_for_a_render_serve_a_call_outside_of_it(model: Qwen3ForCausalLM) -> None:
    steps = StaticSteps(model, rows=2, length=32)
    with torch.inference_mode():
        steps.prefill(PROMPTS)
        first = steps.step(TOKENS[0]).clone()
    steps.prefill(PROMPTS)
    assert torch.equal(steps.step(TOKENS[0]), first)


def test_what_is_recorded_never_waits_for_the_host(model: Qwen3ForCausalLM) -> None:
    waits = Waits()

    def watched(step: Advance) -> Advance:
        def advance() -> torch.Tensor:
            with waits:
                return step()

        return advance

    steps = StaticSteps(model, rows=2, length=32, capture=watched)
    steps.prefill(PROMPTS)
    steps.step(TOKENS[0])
    assert waits.steps > 100
    assert not waits.seen
