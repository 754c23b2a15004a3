"""What the log says of the models that a worker loads."""

from collections.abc import Callable

from structlog.testing import capture_logs

from engine import Engine, Loading, Runner
from engine.composer.runner import ComposerRunner
from gateway.workers.process import tell_of_models


def _breaks() -> Callable[[], Runner]:
    raise ValueError("the weights are cut short")


async def test_each_model_is_told_once_with_the_reason_why_it_could_not_be_loaded() -> None:
    loading = [Loading(model="broken", load=_breaks), Loading(model="whole", load=lambda: _composer)]
    with Engine([ComposerRunner(threads=1)], loading=loading) as engine, capture_logs() as logs:
        await tell_of_models(engine, period_seconds=0.01)
    told = {entry["model"]: (entry["event"], entry.get("reason")) for entry in logs}
    assert told == {
        "broken": ("worker.model_failed", "the weights are cut short"),
        "whole": ("worker.model_ready", None),
    }
    assert len(logs) == 2


def _composer() -> Runner:
    return ComposerRunner(threads=1)
