"""Both ways to attend give what a mask of N x N gives, for every window, length and padding."""

import pytest
import torch

from engine.ace_step.dit import Attention
from engine.ace_step.fast.attention import Blocks, Segments, Shape, segment_ends
from tests.engine.ace_step.fast.conftest import CPU, Tensors, defined, ways

SCALE = 0.35
HEADS, GROUPS, WIDTH = 6, 2, 8


@pytest.mark.parametrize("kind", Attention)
@pytest.mark.parametrize("window", [1, 5, 16, 200])
@pytest.mark.parametrize("tokens", [(1,), (37,), (64, 64), (128, 3, 77)])
def test_rows_get_what_a_full_mask_gives_them(
    kind: Attention, window: int, tokens: tuple[int, ...], draw: Tensors
) -> None:
    words = [9 + 5 * row for row in range(len(tokens))]
    longest = max(tokens) + 3
    shape = Shape(len(tokens), longest, 31)
    length = shape.words if kind is Attention.CROSS else longest
    query = draw(shape.rows, longest, HEADS, WIDTH)
    key, value = draw(shape.rows, length, GROUPS, WIDTH), draw(shape.rows, length, GROUPS, WIDTH)
    for way in ways(window, SCALE):
        plan = way.plan(shape)
        way.fill(plan, list(tokens), words)
        mixed = way.attend(kind, query, key, value, plan)
        assert torch.isfinite(mixed).all(), way.name
        for row, count in enumerate(tokens):
            end = words[row] if kind is Attention.CROSS else count
            wanted = defined(
                kind, query[row, :count], key[row, :end], value[row, :end], window=window, scale=SCALE
            )
            torch.testing.assert_close(mixed[row, :count], wanted, rtol=0, atol=1e-5, msg=way.name)


def test_a_full_bucket_needs_no_mask_and_changes_nothing(draw: Tensors) -> None:
    way = Blocks(device=CPU, dtype=torch.float32, window=4, scale=SCALE)
    query, key, value = draw(2, 24, HEADS, WIDTH), draw(2, 24, GROUPS, WIDTH), draw(2, 24, GROUPS, WIDTH)
    results = []
    for even in (False, True):
        plan = way.plan(Shape(2, 24, 24, even_tokens=even, even_words=even))
        way.fill(plan, [24, 24], [24, 24])
        results.append([way.attend(kind, query, key, value, plan) for kind in Attention])
    for masked, bare in zip(*results, strict=True):
        torch.testing.assert_close(masked, bare, rtol=0, atol=1e-6)


def test_a_plan_is_filled_anew_in_the_same_place(draw: Tensors) -> None:
    query, key = draw(1, 32, HEADS, WIDTH), draw(1, 32, GROUPS, WIDTH)
    for way in ways(4, SCALE):
        plan = way.plan(Shape(1, 32, 32))
        places = {name: tensor.data_ptr() for name, tensor in plan.tensors.items()}
        for count in (20, 31, 7):
            way.fill(plan, [count], [count])
            mixed = way.attend(Attention.FULL, query, key, key, plan)
            wanted = defined(
                Attention.FULL, query[0, :count], key[0, :count], key[0, :count], window=4, scale=SCALE
            )
            torch.testing.assert_close(mixed[0, :count], wanted, rtol=0, atol=1e-5)
        assert places == {name: tensor.data_ptr() for name, tensor in plan.tensors.items()}


def test_segments_cover_every_token_once() -> None:
    ends = segment_ends(Shape(2, 128, 64), [100, 128], [64, 5])
    assert ends["own"] == [0, 100, 128, 256, 256]
    assert ends["asking"] == [0, 128, 128, 256, 256]
    assert ends["words"] == [0, 64, 64, 69, 128]


def test_blocks_need_memory_that_grows_with_the_length_alone() -> None:
    way = Blocks(device=CPU, dtype=torch.float32, window=16, scale=SCALE)
    short, long = (way.plan(Shape(1, tokens, 16)).nbytes for tokens in (256, 2560))
    assert long <= 10 * short


def test_flash_attention_is_not_offered_to_a_processor() -> None:
    assert Segments.offered(CPU, torch.bfloat16) == "no CUDA device"
