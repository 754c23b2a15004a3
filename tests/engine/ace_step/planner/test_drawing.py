"""From scores to tokens."""

from itertools import pairwise

import pytest
import torch

from engine.ace_step.planner.asks import Sampling
from engine.ace_step.planner.drawing import Dice, _places, draw
from engine.ace_step.planner.vocabulary import Choice

CPU = torch.device("cpu")
EVERYTHING = Sampling(top_p=1.0, temperature=1.0)
CHANCES = torch.tensor([0.1, 0.5, 0.15, 0.25])


def shares(sampling: Sampling, chances: torch.Tensor = CHANCES) -> list[float]:
    """How often each token comes, over evenly spread throws."""
    throws = [(throw + 0.5) / 1000 for throw in range(1000)]
    places = _places(chances.log().expand(1000, -1), [sampling] * 1000, throws, greedy=False)
    return (places.bincount(minlength=len(chances)) / 1000).tolist()


def test_tokens_come_as_often_as_their_scores_say() -> None:
    assert shares(EVERYTHING) == pytest.approx([0.1, 0.5, 0.15, 0.25], abs=0.002)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.5, [0, 1, 0, 0]),
        (0.51, [0, 2 / 3, 0, 1 / 3]),
        (0.8, [0, 5 / 9, 1.5 / 9, 2.5 / 9]),
        (0.01, [0, 1, 0, 0]),
    ],
)
def test_top_p_keeps_the_likeliest_until_they_fill_it(top_p: float, expected: list[float]) -> None:
    assert shares(Sampling(top_p=top_p, temperature=1.0)) == pytest.approx(expected, abs=0.002)


def test_top_k_keeps_so_many() -> None:
    sampling = Sampling(top_k=2, top_p=1.0, temperature=1.0)
    assert shares(sampling) == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=0.002)


def test_temperature_comes_after_top_p() -> None:
    """At 0.5, chances are squared; were it applied first, 0.5 of the mass would be more than one token's."""
    squares = CHANCES.square() / CHANCES.square().sum()
    assert shares(Sampling(top_p=1.0, temperature=0.5)) == pytest.approx(squares.tolist(), abs=0.002)
    assert shares(Sampling(top_p=0.6, temperature=0.5)) == pytest.approx([0, 0.8, 0, 0.2], abs=0.002)


def test_at_no_temperature_the_likeliest_comes() -> None:
    cold = Sampling(temperature=0.0)
    assert shares(cold) == [0, 1, 0, 0]
    mixed = _places(CHANCES.log().expand(2, -1), [cold, EVERYTHING], [0.999, 0.999], greedy=False)
    assert mixed.tolist() == [1, 0]


def test_what_was_seen_is_less_likely() -> None:
    choice = Choice([1, 2], CPU)
    scores = torch.tensor([[9.0, 2.0, 1.9, 9.0], [9.0, -2.0, -2.1, 9.0]])
    cold = Sampling(temperature=0.0, repetition_penalty=1.2)
    dice = [Dice(0), Dice(0)]
    assert draw(scores, [choice] * 2, [cold] * 2, [[], []], dice) == [1, 1]
    assert draw(scores, [choice] * 2, [cold] * 2, [[1], [1, 1]], dice) == [2, 2]
    assert scores[0, 1] == 2.0


def test_only_what_is_allowed_is_drawn_and_rows_do_not_disturb_each_other() -> None:
    scores = torch.randn(5, 50, generator=torch.Generator().manual_seed(1))
    few, many, one = Choice([3, 7], CPU), Choice(range(10, 40), CPU), Choice([5], CPU)
    choices = [few, many, one, many, few]

    def run(rows: list[int]) -> list[list[int]]:
        dice = [Dice(seed) for seed in rows]
        picked = []
        for _ in range(20):
            chosen = [choices[row] for row in rows]
            picked.append(draw(scores[rows], chosen, [EVERYTHING] * len(rows), [[]] * len(rows), dice))
        return picked

    together = run([0, 1, 2, 3, 4])
    for tokens in together:
        assert all(token in choice.ids for token, choice in zip(tokens, choices, strict=True))
    for row in range(5):
        assert [[tokens[row]] for tokens in together] == run([row])
    assert any(a != b for a, b in pairwise(together))


def test_a_greedy_choice_throws_no_dice() -> None:
    choice = Choice([1, 2], CPU, greedy=True)
    dice = Dice(3)
    scores = torch.tensor([[0.0, 1.0, 1.1]])
    assert draw(scores, [choice], [EVERYTHING], [[]], [dice]) == [2]
    assert dice.throw() == Dice(3).throw()
