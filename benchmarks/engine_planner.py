"""The planner's step on a device: recorded over fixed buffers, beside the eager one with a growing cache."""

import time
from typing import Any, Final

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from engine.ace_step.fast import Recorder, capture
from engine.ace_step.fast.accelerate import difference
from engine.ace_step.planner.steps import DynamicSteps, StaticSteps, Steps

PROMPTS: Final = ([7 + place % 90 for place in range(300)], [11 + place % 70 for place in range(120)])
"""Two rows, as a guided plan has, one padded."""
LENGTH: Final = 1024
WARM_UP: Final = 4


def planner(device: torch.device, dtype: torch.dtype, *, tiny: bool) -> Qwen3ForCausalLM:
    """Random weights of the released 1.7B, made on `device`; or tiny ones."""
    sizes: dict[str, int] = (
        {"vocab_size": 128, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
        | {"num_attention_heads": 2, "num_key_value_heads": 1}
        if tiny
        else {"vocab_size": 217_204, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28}
        | {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    )
    config = Qwen3Config(**sizes, max_position_embeddings=40_960, tie_word_embeddings=True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Qwen3ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


@torch.inference_mode()
def measure_planner(device: torch.device, dtype: torch.dtype, *, tiny: bool) -> dict[str, Any]:
    """Milliseconds a token of both ways, and how far their scores differ at the end."""
    model = planner(device, dtype, tiny=tiny)
    recorder = Recorder(device)
    ways: tuple[tuple[str, Steps], ...] = (
        ("planner, growing cache: ms a token", DynamicSteps(model)),
        (
            "planner, recorded: ms a token",
            StaticSteps(model, rows=len(PROMPTS), length=LENGTH, capture=capture(recorder)),
        ),
    )
    figures: dict[str, Any] = {}
    scores: list[torch.Tensor] = []
    for name, steps in ways:
        spent, last = _timed(steps, device, tokens=4 if tiny else 64)
        figures[name] = 1e3 * spent
        scores.append(last)
    figures["planner, recorded against growing cache"] = difference(scores[1], scores[0])
    figures["planner, recording"] = recorder.note
    return figures


def _timed(steps: Steps, device: torch.device, *, tokens: int) -> tuple[float, torch.Tensor]:
    """Seconds a token, and the last scores; the same tokens each time."""
    steps.prefill(PROMPTS)
    began, scores = 0.0, torch.empty(0)
    for place in range(WARM_UP + tokens):
        if place == WARM_UP:
            _wait(device)
            began = time.perf_counter()
        scores = steps.step([5 + place % 80, 9 + place % 80])
    _wait(device)
    return (time.perf_counter() - began) / tokens, scores


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
