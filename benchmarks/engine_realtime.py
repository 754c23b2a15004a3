"""How much faster than real time the sandbox model renders on one thread."""

import resource
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

from engine import EngineRequest, Finished
from engine.composer.runner import MODEL, ComposerRunner

LENGTHS_SECONDS = (10, 60, 240, 600)
PROMPTS = ("pop song", "techno", "ambient", "orchestral cinematic")


def main() -> None:
    """The first row includes the warm-up of a fresh process."""
    runner = ComposerRunner(threads=1)
    sys.stdout.write(
        f"{'prompt':22}{'song':>7}{'render':>9}{'x real time':>13}{'longest step':>14}{'peak RSS':>11}\n"
    )
    for seconds in LENGTHS_SECONDS:
        for prompt in PROMPTS:
            took, longest = measure(runner, prompt, seconds)
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            row = f"{prompt:22}{seconds:>5} s{took:>7.2f} s{seconds / took:>13.1f}{longest * 1e3:>11.0f} ms"
            sys.stdout.write(f"{row}{peak_mib:>7.0f} MiB\n")


def measure(runner: ComposerRunner, prompt: str, seconds: int) -> tuple[float, float]:
    """Seconds for the song, and for the longest step between two chances to cancel."""
    times = [time.perf_counter(), *_steps(runner, prompt, seconds)]
    return times[-1] - times[0], max(b - a for a, b in pairwise(times))


def _steps(runner: ComposerRunner, prompt: str, seconds: int) -> Iterator[float]:
    request = EngineRequest(
        id="benchmark", model=MODEL, prompt=prompt, lyrics="", frames=seconds * 48_000, seed=1
    )
    for event in runner.run([request], lambda _: True):
        yield time.perf_counter()
        assert not isinstance(event, Finished) or event.result.samples.shape == (2, request.frames)


if __name__ == "__main__":
    main()
