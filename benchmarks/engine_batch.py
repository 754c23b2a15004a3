"""Songs of mixed length served in padded batches against one by one, both in the same run, on the CPU.

The weights are tiny and random: the figures are for the ratio, and say nothing of how fast a real model is.
A batch saves the time between operations. That is little on a CPU, and most of it on a GPU with short songs.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from engine import VARIANTS, EngineRequest, Finished, ModelLimits
from engine.ace_step.bundle import Bundle
from engine.ace_step.checkpoint.loading import load_bundle
from engine.ace_step.runner import AceStepRunner
from engine.scheduler import next_batch
from tests.checkpoints.tiny import write_checkpoint

RATE = 48_000
LENGTHS_SECONDS = (6.0, 9.5, 7.0, 10.0, 8.5, 6.5, 9.0, 7.5)
STEPS = {"turbo": 8, "base": 50}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--seconds", type=float, help="ignored: a round takes what it takes")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(kind, rounds=1 if options.quick else 5) for kind in STEPS]
    if options.as_json:
        sys.stdout.write(json.dumps({"engine_batch": rows}) + "\n")
        return
    sys.stdout.write(f"{len(LENGTHS_SECONDS)} songs, {sum(LENGTHS_SECONDS):.0f} s of audio\n")
    sys.stdout.write(
        f"{'model':8}{'steps':>6}{'batched':>10}{'one by one':>12}{'ratio':>8}{'denoising':>11}\n"
    )
    for row in rows:
        sys.stdout.write(
            f"{row['model']:8}{row['steps']:>6}{row['batched_s']:>8.2f} s{row['single_s']:>10.2f} s"
            f"{row['ratio']:>8.2f}{row['denoise_ratio']:>11.2f}\n"
        )


def measure(kind: str, *, rounds: int) -> dict[str, float | str]:
    """Medians over rounds that alternate between both ways, after one that is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = load_bundle(
            write_checkpoint(Path(folder) / kind, kind), name=kind, device="cpu", dtype=torch.float32
        )
    serve(bundle, kind, 8)
    batched, single = [], []
    for _ in range(rounds):
        batched.append(serve(bundle, kind, 8))
        single.append(serve(bundle, kind, 1))
    both = list(zip(batched, single, strict=True))
    return {
        "model": kind,
        "steps": STEPS[kind],
        "batched_s": statistics.median(took for took, _ in batched),
        "single_s": statistics.median(took for took, _ in single),
        "ratio": statistics.median(one[0] / many[0] for many, one in both),
        "denoise_ratio": statistics.median(one[1] / many[1] for many, one in both),
    }


def serve(bundle: Bundle, kind: str, requests: int) -> tuple[float, float]:
    """Seconds for all songs, in the batches that the scheduler makes of them, and those spent denoising."""
    runner = AceStepRunner(bundle, VARIANTS[kind], limits=ModelLimits(requests=requests), threads=1)
    waiting = [ask(kind, index) for index in range(len(LENGTHS_SECONDS))]
    denoising = 0.0
    began = time.perf_counter()
    while batch := next_batch(waiting, runner.limits(kind)):
        waiting = [request for request in waiting if request not in batch]
        events = list(runner.run(batch, lambda _: True))
        songs = [event.result for event in events if isinstance(event, Finished)]
        assert len(songs) == len(batch)
        denoising += max((song.phases or {})["denoise"] for song in songs)  # which a batch shares
    return time.perf_counter() - began, denoising


def ask(kind: str, index: int) -> EngineRequest:
    return EngineRequest(
        id=str(index),
        model=kind,
        prompt=f"song number {index}",
        lyrics="la " * (index + 1),
        frames=round(LENGTHS_SECONDS[index] * RATE),
        seed=index,
    )


if __name__ == "__main__":
    main()
