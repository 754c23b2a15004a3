"""The engine over tiny checkpoints from disk: loading, warmth, planning, and the composer beside them."""

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import (
    Engine,
    EngineRequest,
    InvalidRequest,
    LoadState,
    ModelSpec,
    ModelStatus,
    NotLoaded,
    TooLarge,
    Tuning,
)
from engine.ace_step.bundle import Bundle
from engine.ace_step.memory import shape_of
from engine.models import ModelLimits
from engine.runtime import _Shelf, open_engine
from tests.checkpoints.tiny import write_checkpoint
from tests.checkpoints.tiny_planner import save_planner

RATE = 48_000
PATIENCE_S = 120.0
MEMORY_BYTES = 170_000_000


def _ask(id_: str, model: str = "tiny", seconds: float = 5.2, **fields: object) -> EngineRequest:
    values = {"prompt": "pop", "lyrics": "la la", "seed": 3, "frames": round(seconds * RATE), **fields}
    return EngineRequest(id=id_, model=model, **values)  # type: ignore[arg-type]


def _loaded(engine: Engine) -> dict[str, ModelStatus]:
    """The status once nothing is loading any more."""
    waited = threading.Event()
    for _ in range(2400):
        status = {status.model: status for status in engine.status()}
        if all(model.state is not LoadState.LOADING for model in status.values()):
            return status
        waited.wait(PATIENCE_S / 2400)
    raise AssertionError(engine.status())


@pytest.fixture(scope="module", name="engine")
def _engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Two good models and two that cannot be served."""
    weights = write_checkpoint(tmp_path_factory.mktemp("weights"), "turbo")
    bare = write_checkpoint(tmp_path_factory.mktemp("bare"), "base", tokenizers=False)
    planner = save_planner(tmp_path_factory.mktemp("planner"))
    specs = [
        ModelSpec(name="tiny", source=str(weights), variant="turbo"),
        ModelSpec(name="guided", source=str(bare), variant="base", donor=str(weights)),
        ModelSpec(name="missing", source=str(weights / "nowhere"), variant="turbo"),
        ModelSpec(name="mistaken", source=str(weights), variant="xl-sft"),
    ]
    tuning = Tuning(warm_up_seconds=1.0, threads=1, limits=ModelLimits(memory_bytes=MEMORY_BYTES))
    with open_engine(device="cpu", models=specs, planner=str(planner), tuning=tuning) as engine:
        yield engine


def test_models_are_loaded_and_warm_and_the_others_say_why_not(engine: Engine) -> None:
    status = _loaded(engine)
    assert engine.models == {"sandbox", "tiny", "guided"}
    for name in ("tiny", "guided"):
        assert status[name].warm
        assert (status[name].load_seconds or 0) > 0
        assert 100 < (status[name].longest_seconds or 0) < 600
    assert "nowhere" in (status["missing"].error or "")
    assert "holds turbo weights" in (status["mistaken"].error or "")
    with pytest.raises(NotLoaded, match="nowhere"):
        engine.submit(_ask("a", "missing"))


def test_songs_of_all_models_come_back_side_by_side(engine: Engine) -> None:
    _loaded(engine)
    asks = [
        _ask("composed", "sandbox"),
        _ask("first"),
        _ask("guided", "guided", num_inference_steps=3),
        _ask("second", seconds=5.5),
    ]
    tickets = [engine.submit(ask) for ask in asks]
    for ask, ticket in zip(asks, tickets, strict=True):
        assert ticket.future.result(PATIENCE_S).samples.shape == (2, ask.frames)
    assert set(tickets[1].future.result(0).phases or {}) == {"prepare", "denoise", "decode"}
    status = {status.model: status for status in engine.status()}
    assert (status["tiny"].realtime_factor or 0) > 0


def test_a_planned_song_follows_its_plan_and_an_open_length_ends_where_the_plan_does(engine: Engine) -> None:
    _loaded(engine)
    plain, planned, opened = (
        engine.submit(ask)
        for ask in (
            _ask("plain", seconds=6),
            _ask("planned", seconds=6, thinking=True),
            _ask("opened", seconds=12, thinking=True, open_length=True),
        )
    )
    first, second = (ticket.future.result(PATIENCE_S) for ticket in (plain, planned))
    assert first.samples.shape == second.samples.shape
    assert not np.allclose(first.samples, second.samples, atol=1e-3)
    assert set(second.phases or {}) == {"plan", "prepare", "denoise", "decode"}
    assert 10 * RATE <= opened.future.result(PATIENCE_S).samples.shape[1] <= 12 * RATE


def test_what_cannot_be_rendered_is_refused_before_it_waits(engine: Engine) -> None:
    _loaded(engine)
    with pytest.raises(InvalidRequest, match="num_inference_steps"):
        engine.submit(_ask("a", num_inference_steps=50))
    with pytest.raises(TooLarge, match="at most"):
        engine.submit(_ask("a", seconds=600))
    assert engine.waiting == 0


def test_a_served_model_is_folded_and_stays_only_as_long_as_it_is_served(
    tmp_path: Path, turbo_bundle: Bundle
) -> None:
    spec = ModelSpec(name="tiny", source=str(write_checkpoint(tmp_path, "turbo")), variant="turbo")
    shelf = _Shelf(torch.device("cpu"), None, Tuning())
    runner: Any = shelf.load(spec)()
    assert runner.shape.weights_bytes < shape_of(turbo_bundle, scores=False).weights_bytes
    gone = weakref.ref(runner)
    del runner
    gc.collect()
    assert gone() is None
