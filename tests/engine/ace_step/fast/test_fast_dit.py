"""The fast transformer is the same function as the plain one and as the model itself."""

import gc
import weakref
from collections.abc import Sequence

import pytest
import torch

from engine.ace_step.bundle import Bundle
from engine.ace_step.dit import Dit
from engine.ace_step.fast.dit import FastBatch, FastDit, Room
from engine.ace_step.fast.fuse import Fuser
from engine.ace_step.fast.graphs import Recorder
from engine.ace_step.fast.weights import lay_out
from engine.ace_step.sampler import Denoised, denoise
from engine.ace_step.schedule import timesteps
from engine.ace_step.song import Condition, Song
from tests.engine.ace_step.fast.conftest import CPU, Tensors, Waits, ways

WORDS = 24  # width of the tiny condition encoder
WINDOW, SCALE = 16, 8**-0.5


def fast(bundle: Bundle, *, bucket: int = 128, backend: str | None = None, way: int = 0) -> FastDit:
    return FastDit(
        bundle.dit, way=ways(WINDOW, SCALE)[way], fuser=Fuser(backend), recorder=Recorder(CPU), bucket=bucket
    )


def batch_of(dit: FastDit, contexts: Sequence[torch.Tensor], conditions: Sequence[Condition]) -> FastBatch:
    return dit.batch(contexts, [dit.memory(condition) for condition in conditions])


@pytest.mark.parametrize("frames", [1, 75, 256, 301])
@pytest.mark.parametrize("way", [0, 1])
def test_a_song_alone_gets_what_the_models_own_forward_gives(
    frames: int, way: int, bundle: Bundle, draw: Tensors
) -> None:
    dit = fast(bundle, way=way)
    context, words, latents = draw(frames, 16), draw(11, WORDS), draw(1, frames, 8)
    t = torch.tensor([0.7])
    with torch.no_grad():
        wanted = bundle.dit(latents, t, t, words[None], context[None], return_dict=False)[0]
    got = dit.velocity(batch_of(dit, [context], [Condition(words)]), latents, t)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bucket", "way"), [(1, 0), (32, 0), (128, 0), (128, 1)])
def test_uneven_rows_get_what_the_plain_transformer_gives(
    bucket: int, way: int, bundle: Bundle, draw: Tensors
) -> None:
    plain, dit = Dit(bundle.dit), fast(bundle, bucket=bucket, way=way)
    frames, lengths = (150, 33, 64), (7, 40, 129)
    contexts = [draw(count, 16) for count in frames]
    conditions = [Condition(draw(count, WORDS)) for count in lengths]
    plain_batch = plain.batch(contexts, [plain.memory(condition) for condition in conditions])
    batch = batch_of(dit, contexts, conditions)
    for times in ([1.0, 0.5, 0.25], [0.3, 0.9, 0.6]):
        latents, t = draw(3, max(frames), 8), torch.tensor(times)
        wanted, got = plain.velocity(plain_batch, latents, t), dit.velocity(batch, latents, t)
        for row, count in enumerate(frames):
            torch.testing.assert_close(got[row, :count], wanted[row, :count], rtol=0, atol=1e-5)


def test_what_stands_behind_a_rows_end_changes_nothing(bundle: Bundle, draw: Tensors) -> None:
    dit = fast(bundle)
    batch = batch_of(
        dit, [draw(60, 16), draw(31, 16)], [Condition(draw(5, WORDS)), Condition(draw(9, WORDS))]
    )
    latents, t = draw(2, 60, 8), torch.tensor([0.5, 0.5])
    clean = dit.velocity(batch, latents, t)
    latents[1, 31:] = float("nan")
    dirty = dit.velocity(batch, latents, t)
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1, :31], dirty[1, :31])


def test_two_batches_take_turns_in_one_bucket(bundle: Bundle, draw: Tensors) -> None:
    dit = fast(bundle)
    batches = [
        batch_of(dit, [draw(frames, 16)], [Condition(draw(words, WORDS))])
        for frames, words in ((80, 9), (33, 20))
    ]
    inputs = [(draw(1, 80, 8), torch.tensor([0.9])), (draw(1, 33, 8), torch.tensor([0.4]))]
    first = [dit.velocity(batch, *given) for batch, given in zip(batches, inputs, strict=True)]
    again = [dit.velocity(batch, *given) for batch, given in zip(batches, inputs, strict=True)]
    assert dit.buckets == 1
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


def test_a_bucket_keeps_no_song_that_is_over(bundle: Bundle, draw: Tensors) -> None:
    dit = fast(bundle)
    context = draw(40, 16)
    batch = batch_of(dit, [context], [Condition(draw(6, WORDS))])
    dit.velocity(batch, draw(1, 40, 8), torch.tensor([1.0]))
    over = weakref.ref(batch)
    del batch
    gc.collect()
    assert over() is None
    assert dit.held_bytes > 0


def test_lengths_of_one_bucket_share_it_and_forget_gives_it_back(bundle: Bundle, draw: Tensors) -> None:
    dit = fast(bundle)
    for frames, buckets in ((10, 1), (200, 1), (253, 1), (257, 2)):
        batch = batch_of(dit, [draw(frames, 16)], [Condition(draw(4, WORDS))])
        dit.velocity(batch, draw(1, frames, 8), torch.tensor([1.0]))
        assert dit.buckets == buckets
    dit.forget()
    assert dit.buckets == 0


@pytest.mark.slow
def test_traced_kernels_change_nothing(bundle: Bundle, draw: Tensors) -> None:
    context, condition = draw(50, 16), Condition(draw(6, WORDS))
    latents, t = draw(1, 50, 8), torch.tensor([0.6])
    results = []
    for backend in (None, "eager"):
        dit = fast(bundle, backend=backend)
        results.append(dit.velocity(batch_of(dit, [context], [condition]), latents, t))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-6)


def test_a_whole_song_ends_where_the_plain_transformer_leads(bundle: Bundle, draw: Tensors) -> None:
    songs = [
        Song(
            id=str(frames),
            noise=draw(frames, 8),
            context=draw(frames, 16),
            condition=Condition(draw(words, WORDS)),
            timesteps=timesteps(steps, 3.0),
        )
        for frames, words, steps in ((90, 12, 4), (41, 30, 3))
    ]
    ends = []
    for dit in (Dit(bundle.dit), fast(bundle)):
        events = denoise(dit, songs, lambda _: True)  # type: ignore[misc]
        ends.append({event.id: event.latents for event in events if isinstance(event, Denoised)})
    assert ends[0].keys() == ends[1].keys() == {"90", "41"}
    for name, latents in ends[0].items():
        torch.testing.assert_close(ends[1][name], latents, rtol=0, atol=1e-5)


def test_joined_weights_are_the_models_own_memory(bundle: Bundle) -> None:
    weights = lay_out(bundle.dit)
    for layer, own in zip(bundle.dit.layers, weights.layers, strict=True):
        joined = own.qkv.untyped_storage().data_ptr()
        parts = (layer.self_attn.to_q, layer.self_attn.to_k, layer.self_attn.to_v)
        assert [part.weight.untyped_storage().data_ptr() for part in parts] == [joined] * 3
        assert torch.equal(own.qkv, torch.cat([part.weight for part in parts]))
        assert torch.equal(own.gate_up, torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]))
        cross = (layer.cross_attn.to_k, layer.cross_attn.to_v)
        assert {part.weight.untyped_storage().data_ptr() for part in cross} == {
            weights.cross_kv.untyped_storage().data_ptr()
        }


def test_laying_out_twice_copies_nothing(bundle: Bundle) -> None:
    first, second = lay_out(bundle.dit), lay_out(bundle.dit)
    assert first.cross_kv.data_ptr() == second.cross_kv.data_ptr()
    assert [layer.qkv.data_ptr() for layer in first.layers] == [
        layer.qkv.data_ptr() for layer in second.layers
    ]


def test_the_words_of_all_layers_are_those_of_each_layer(bundle: Bundle, draw: Tensors) -> None:
    condition = Condition(draw(13, WORDS))
    got, wanted = fast(bundle).memory(condition), Dit(bundle.dit).memory(condition)
    torch.testing.assert_close(got.keys, wanted.keys, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.values, wanted.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", [0, 1])
@torch.inference_mode()
def test_what_is_recorded_never_waits_for_the_host(
    way: int, bundle: Bundle, draw: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Waits()
    forward = FastDit.forward

    def watched(self: FastDit, room: Room) -> torch.Tensor:
        with waits:
            return forward(self, room)

    monkeypatch.setattr(FastDit, "forward", watched)
    dit = fast(bundle, way=way)
    if way:  # the stand-in for the kernel reads the ends; the kernel does so on the device
        monkeypatch.setattr(dit._way, "_flash", lambda query, *_, **__: (query,))
    batch = batch_of(dit, [draw(frames, 16) for frames in (75, 30)], [Condition(draw(9, WORDS))] * 2)
    dit.velocity(batch, draw(2, 75, 8), torch.tensor([0.7, 0.2]))
    assert waits.steps > 100
    assert not waits.seen
