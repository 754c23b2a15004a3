"""One tiny language model for the planner's tests."""

from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from engine.ace_step.planner import Plan, PlanAsk, Planned, Planner, Wishes
from engine.ace_step.planner.prompts import Prompts
from engine.ace_step.planner.vocabulary import Vocabulary
from tests.checkpoints.tiny_planner import CODES, build_planner_model, build_planner_tokenizer

Ask = Callable[..., PlanAsk]


@pytest.fixture(scope="session", name="tokenizer")
def _tokenizer() -> PreTrainedTokenizerFast:
    return build_planner_tokenizer()


@pytest.fixture(scope="session", name="model")
def _model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    return build_planner_model(tokenizer)


@pytest.fixture(scope="session", name="vocabulary")
def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    return Vocabulary(tokenizer, torch.device("cpu"), codes=CODES)


@pytest.fixture(scope="session", name="prompts")
def _prompts(tokenizer: PreTrainedTokenizerFast) -> Prompts:
    return Prompts(tokenizer)


@pytest.fixture(scope="session", name="shared_planner")
def _shared_planner(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Planner:
    return Planner(model, tokenizer, caption_tokens=6, lyric_tokens=8)


@pytest.fixture(name="planner")
def _planner(shared_planner: Planner) -> Planner:
    """With nothing in its memory."""
    shared_planner._thoughts.clear()
    return shared_planner


def ask(id_: str = "a", *, seconds: float | None = 1.0, seed: int = 1, **fields: object) -> PlanAsk:
    """An ask with everything a test does not care about filled in; 1 s is 5 codes."""
    wishes = fields.pop("wishes", Wishes(duration_s=seconds))
    values: dict[str, object] = {"caption": "slow piano ballad", "lyrics": "[Verse]\nhome again", **fields}
    return PlanAsk(id=id_, wishes=wishes, seed=seed, **values)  # type: ignore[arg-type]


def plans(planner: Planner, asks: Sequence[PlanAsk]) -> dict[str, Plan]:
    """The plans of all asks."""
    events = planner.plan(asks, wanted=lambda _: True)
    return {event.id: event.plan for event in events if isinstance(event, Planned)}
