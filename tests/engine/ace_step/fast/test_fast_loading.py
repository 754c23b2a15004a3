"""What is fast is compared when it is loaded; what disagrees or fails is left out, and the report says so."""

from collections.abc import Callable

import pytest
import torch

from engine.ace_step.bundle import Bundle
from engine.ace_step.dit import Dit
from engine.ace_step.fast import accelerate, kernels
from engine.ace_step.fast.attention import Blocks
from engine.ace_step.fast.dit import FastDit
from engine.ace_step.fast.fuse import Fuser
from engine.ace_step.fast.graphs import GraphedStep, Recorder, Shelf, capture
from engine.ace_step.vae import Vae
from tests.engine.ace_step.fast.conftest import CPU, Tensors


def test_a_processor_keeps_the_plain_path(bundle: Bundle) -> None:
    made = accelerate(bundle)
    assert type(made.dit) is Dit
    assert type(made.vae) is Vae
    assert made.report().splitlines() == [
        "transformer: off, the plain path is used on cpu",
        "decoder: off, the plain path is used on cpu",
    ]


def test_every_part_agrees_where_it_is_asked_for(bundle: Bundle) -> None:
    made = accelerate(bundle, everywhere=True, compiler=None)
    assert isinstance(made.dit, FastDit)
    parts = {part.name: part for part in made.parts}
    assert [name for name, part in parts.items() if part.on] == [Blocks.name, "transformer", "decoder"]
    for name in (Blocks.name, "transformer", "decoder"):
        difference = parts[name].difference
        assert difference is not None
        assert 0 < difference < 1e-5
    assert parts["CUDA graphs"].note == "off: no CUDA device"


def test_a_window_one_token_too_wide_is_noticed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Blocks._band

    def wrong(self: Blocks, own: torch.Tensor) -> torch.Tensor:
        self._window += 1
        band = right(self, own)
        self._window -= 1
        return band

    monkeypatch.setattr(Blocks, "_band", wrong)
    made = accelerate(bundle, everywhere=True, compiler=None)
    assert type(made.dit) is Dit
    assert f"{Blocks.name}: off, differs by more than 0.0001" in made.report()
    assert "transformer: off, no attention agrees" in made.report()


@pytest.mark.parametrize(("kernel", "part"), [("swiglu", "transformer"), ("biased_snake", "decoder")])
def test_a_wrong_kernel_switches_only_its_part_off(
    kernel: str, part: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(kernels, kernel)
    monkeypatch.setattr(kernels, kernel, lambda *given: right(*given) * 1.05)
    made = accelerate(bundle, everywhere=True, compiler=None)
    off = {each.name for each in made.parts if not each.on} & {"transformer", "decoder"}
    assert off == {part}


def test_a_failing_part_leaves_the_plain_one(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such kernel\nand much more")

    monkeypatch.setattr(kernels, "turned", fail)
    made = accelerate(bundle, everywhere=True, compiler=None)
    assert type(made.dit) is Dit
    assert "off, RuntimeError: no such kernel" in made.report()


def test_one_traced_function_serves_all_lengths(draw: Tensors) -> None:
    fuser = Fuser("eager")
    traced = fuser(kernels.swiglu)
    for length in (2, 3, 64):
        joined = draw(length, 8)
        assert torch.equal(traced(joined), kernels.swiglu(joined))
    assert fuser.on


def test_widths_are_constants_in_what_is_compiled(draw: Tensors) -> None:
    variable: list[list[str]] = []

    def record(graph: torch.fx.GraphModule, inputs: list[object]) -> Callable[..., object]:
        variable.append([str(size) for size in inputs if isinstance(size, torch.SymInt)])
        return graph.forward

    fuser = Fuser("eager")
    fuser._backend = record  # type: ignore[assignment]
    bent = fuser(kernels.biased_snake)
    for length, width in ((10, 8), (50, 4), (20, 8), (60, 4), (70, 2)):
        bent(draw(1, length, width), *(draw(width) for _ in range(3)))
    assert fuser.on
    assert [len(sizes) for sizes in variable] == [1, 1, 1]  # the length, in one graph a width


def test_what_does_not_compile_runs_as_it_is() -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("this compiler compiles nothing")

    fuser = Fuser("eager")
    fuser._backend = refuse  # type: ignore[assignment]
    doubled = fuser(lambda x: x * 2)
    assert doubled(torch.ones(2)).tolist() == [2.0, 2.0]
    assert not fuser.on
    assert "compiles nothing" in fuser.note
    assert doubled(torch.ones(1)).tolist() == [2.0]


class Counter:
    """A step that moves its own counter on, as a decoding step does."""

    def __init__(self) -> None:
        self.place = torch.zeros(1, dtype=torch.long)
        self.cache = [torch.zeros(8)]

    def step(self) -> torch.Tensor:
        self.place.add_(1)
        self.cache[0].index_fill_(0, self.place, 1.0)
        return self.cache[0] * 2


def test_a_rehearsal_leaves_a_steps_counters_where_they_were() -> None:
    counter = Counter()
    step = capture(Recorder(CPU))(counter.step)
    for _ in range(3):
        step._rehearse()
    assert counter.place.tolist() == [0]
    assert step().tolist() == [0, 2, 0, 0, 0, 0, 0, 0]
    assert step().tolist() == [0, 2, 2, 0, 0, 0, 0, 0]


def test_a_step_runs_as_it_is_where_nothing_can_be_recorded() -> None:
    recorder = Recorder(CPU)
    place = torch.zeros(2)
    step = GraphedStep(lambda: place + 1, recorder)
    place.fill_(4.0)
    assert step().tolist() == [5.0, 5.0]
    assert not step.recorded
    assert recorder.note == "off: no CUDA device"


@pytest.mark.parametrize(
    ("most", "most_bytes", "kept"),
    [(2, 100, ["a", "c"]), (9, 20, ["a", "c"]), (9, 5, ["c"]), (9, 30, ["b", "a", "c"])],
)
def test_a_shelf_drops_what_was_used_longest_ago(most: int, most_bytes: int, kept: list[str]) -> None:
    shelf: Shelf[str] = Shelf(most=most, most_bytes=most_bytes)
    made: list[str] = []

    def make(name: str) -> Callable[[], str]:
        return lambda: made.append(name) or name  # type: ignore[func-returns-value]

    for name in ("a", "b", "a", "c"):
        assert shelf.take(name, 10, make(name)) == name
    assert list(shelf._values) == kept
