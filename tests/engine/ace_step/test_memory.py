"""The estimate of memory against what the CPU's allocator is really asked for, on tiny weights."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from diffusers import AutoencoderOobleck
from torch.profiler import ProfilerActivity, profile

from engine.ace_step import memory
from engine.ace_step.bundle import Bundle
from engine.ace_step.dit import Dit
from engine.ace_step.memory import RELEASED, longest_seconds, peak_bytes, ran_out, shape_of, table
from engine.ace_step.song import Condition
from engine.ace_step.vae import Vae


def _peak(work: Callable[[], object]) -> int:
    """The most bytes that `work` holds at once, as counted by the allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        made = work()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    del made
    return most


def _activations(shape: memory.Shape, frames: Sequence[int], rows: int, chunk: int) -> int:
    return peak_bytes(shape, frames, rows=rows, chunk=chunk) - shape.weights_bytes


@pytest.mark.parametrize("frames", [[1500], [3000], [1500, 1400, 1300, 1200]])
@torch.inference_mode()
def test_a_step_stays_within_its_estimate(turbo_bundle: Bundle, frames: list[int]) -> None:
    shape, dit = shape_of(turbo_bundle, scores=False), Dit(turbo_bundle.dit)

    def step() -> object:
        memories = [
            dit.memory(Condition(torch.randn(memory.MAX_WORDS - index, 24))) for index in range(len(frames))
        ]
        batch = dit.batch([torch.randn(length, 16) for length in frames], memories)
        latents = torch.randn(len(frames), max(frames), 8)
        return batch, memories, dit.velocity(batch, latents, torch.full((len(frames),), 0.5))

    measured = _peak(step)
    # A song alone has its words once, not twice; on short tiny songs that is most of it.
    assert measured <= _activations(shape, frames, len(frames), chunk=1) <= 2.5 * measured


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("chunk", [32, 128])
@torch.inference_mode()
def test_a_chunk_stays_within_its_estimate(turbo_bundle: Bundle, chunk: int) -> None:
    # 16 channels, because the CPU's convolutions round up to that, which would hide what is counted.
    vae = AutoencoderOobleck(
        encoder_hidden_size=16,
        downsampling_ratios=[2, 4, 4, 6, 10],
        channel_multiples=[1, 1, 2, 2, 4],
        decoder_channels=16,
        decoder_input_channels=8,
        audio_channels=2,
        sampling_rate=48_000,
    ).eval()
    shape = msgspec.structs.replace(
        shape_of(msgspec.structs.replace(turbo_bundle, vae=vae), scores=False), layers=1
    )
    latents = torch.randn(200, 8)
    measured = _peak(lambda: list(Vae(vae).decode(latents, chunk_frames=chunk))[-1])
    state = _activations(shape, [200], 1, chunk=chunk)
    assert measured <= state <= 2 * measured


def test_the_estimate_knows_the_weights(turbo_bundle: Bundle) -> None:
    modules = [
        turbo_bundle.dit,
        turbo_bundle.condition_encoder,
        turbo_bundle.text_encoder,
        turbo_bundle.vae,
        turbo_bundle.audio_tokenizer,
        turbo_bundle.audio_detokenizer,
    ]
    counted = sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
    assert shape_of(turbo_bundle, scores=False).weights_bytes == pytest.approx(counted, rel=0.01)


def test_more_of_anything_needs_more_memory() -> None:
    shape = RELEASED["2B"]
    plain = peak_bytes(shape, [6000])
    assert peak_bytes(msgspec.structs.replace(shape, scores=True), [15_000]) > peak_bytes(shape, [15_000])
    assert peak_bytes(shape, [6000, 6000]) > plain
    assert peak_bytes(shape, [6000], rows=2) > plain
    assert peak_bytes(shape, [15_000]) > plain
    assert peak_bytes(shape, [250]) < plain
    assert peak_bytes(shape, [6000], chunk=64) < plain
    assert peak_bytes(RELEASED["XL"], [6000]) > plain


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", list(RELEASED))
def test_the_longest_song_is_the_longest_that_fits(name: str, rows: int) -> None:
    shape, previous = RELEASED[name], 0.0
    for gigabytes in range(4, 40):
        seconds = longest_seconds(shape, gigabytes * 10**9, rows=rows)
        assert previous <= seconds <= 600
        if seconds:
            assert _smallest(shape, seconds, rows) <= gigabytes * 10**9
        if seconds < 600:
            assert _smallest(shape, seconds + 1, rows) > gigabytes * 10**9
        previous = seconds


def _smallest(shape: memory.Shape, seconds: float, rows: int) -> int:
    return peak_bytes(shape, [max(128, round(seconds * 25))], rows=rows, chunk=memory.MIN_CHUNK_FRAMES)


@pytest.mark.parametrize(("gigabytes", "chunk"), [(80, 512), (9, 256), (8, 128), (7, 32)])
def test_chunks_shrink_with_the_device(gigabytes: int, chunk: int) -> None:
    fitting = memory.fitting_chunk(RELEASED["2B"], [1500], rows=1, most=512, device_bytes=gigabytes * 10**9)
    assert fitting == chunk


def test_running_out_of_memory_is_told_from_other_failures() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert ran_out(caught.value)
    assert ran_out(MemoryError())
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB"))
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not ran_out(caught.value)
    assert not ran_out(OSError(errno.ENOMEM, "out of memory"))


def test_free_memory_is_what_this_machine_has() -> None:
    free = memory.free_bytes(torch.device("cpu"))
    assert 50_000_000 < free < 1 << 46


def test_the_table_has_a_row_for_each_device() -> None:
    lines = table().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        f"{size} GB" for size in (6, 8, 12, 16, 24, 48, 80, 141)
    ]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_the_docs_have_the_table() -> None:
    """`python docs/generate_memory.py` writes it."""
    assert f"\n{table()}\n" in (Path(__file__).parents[3] / "docs" / "performance.md").read_text()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_widest_layer_of_the_released_decoder() -> None:
    with torch.device("meta"):
        vae = AutoencoderOobleck(downsampling_ratios=[2, 4, 4, 6, 10])
    assert memory.decoder_width(vae.config) == RELEASED["XL"].decoder == 128 * 1920
