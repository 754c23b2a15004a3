"""What a job's row keeps of a request: rows of before are read, and what nobody said is not written."""

import msgspec

from engine import Task
from gateway.generation import MAX_SEED, AudioInput, GenerationRequest

OF_BEFORE = b'{"prompt":"a song","frames":240000,"seed":7,"bpm":90,"format":"mp3"}'


def test_a_request_of_before_the_editing_tasks_is_read() -> None:
    request = msgspec.json.decode(OF_BEFORE, type=GenerationRequest)
    assert (request.frames, request.seed, request.bpm, request.format) == (240_000, 7, 90, "mp3")
    assert (request.task, request.n, request.open_length) == (Task.TEXT2MUSIC, 1, False)
    assert (request.source_audio, request.timesteps, request.thinking) == (None, (), False)


def test_a_simple_request_is_written_as_before() -> None:
    request = msgspec.json.decode(OF_BEFORE, type=GenerationRequest)
    assert msgspec.json.decode(msgspec.json.encode(request)) == msgspec.json.decode(OF_BEFORE)


def test_what_is_said_survives_the_row() -> None:
    request = GenerationRequest(
        prompt="a song",
        frames=1,
        seed=MAX_SEED,
        task=Task.REPAINT,
        source_audio=AudioInput(file_id="f", frames=1),
        reference_audio=AudioInput(url="https://music.example/a"),
        timesteps=(1.0, 0.5),
        track_classes=("bass",),
        repainting_start=-0.5,
        n=8,
    )
    assert msgspec.json.decode(msgspec.json.encode(request), type=GenerationRequest) == request


def test_seeds_of_variations_go_on_at_zero() -> None:
    request = GenerationRequest(prompt="a song", frames=1, seed=MAX_SEED - 1, n=3)
    assert [request.variation_seed(index) for index in range(3)] == [MAX_SEED - 1, MAX_SEED, 0]
