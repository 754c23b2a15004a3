r"""The engine on a GPU: XL-turbo sizes, random weights, 8 steps, beside diffusers' pipeline and physics.

    python benchmarks/engine_gpu.py [--budget 420] [--repeats 3] [--json engine_gpu.json] [--profile] [--tiny]

Weights are made on the device itself, so that nothing is downloaded; speed does not depend on their values.
`--tiny` runs the same on a CPU with a checkpoint of a megabyte and shorter songs, each once: that everything
works, not how fast. Of this repository it needs `benchmarks`, `engine` and `tests/checkpoints`; of packages
torch, diffusers, transformers, numpy and msgspec. To a machine that has the others and no internet, carry
diffusers and msgspec:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 -d wheels diffusers==0.42.1 msgspec==0.22.0
    python3 -m pip install --no-index --no-deps --target /tmp/site wheels/*.whl     # there
    PYTHONPATH=/tmp/site python3 benchmarks/engine_gpu.py

A row is skipped, and says so, when the budget (seconds) would not last for it: the least important come last.
What fails costs its own row only. The pipeline decodes songs whole, as is its default, and in its own tiles
where that fails. `--profile` adds which kernels took the time. With the variable OUT set, the figures are
also written to $OUT/engine_gpu.json, anew after each row.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch

if not __package__:  # as a script, also without an installation
    _root = Path(__file__).resolve().parents[1]
    sys.path[0] = str(_root)
    for _name in ("benchmarks", "tests"):  # other packages leave such names in site-packages
        _package = sys.modules[_name] = ModuleType(_name)
        _package.__path__ = [str(_root / _name)]

from benchmarks.engine_floor import Floor, Rates, measure_rates
from benchmarks.engine_planner import measure_planner
from benchmarks.engine_weights import tiny_pipeline, xl_pipeline
from engine.ace_step.bundle import Bundle
from engine.ace_step.dit import Denoiser, Dit
from engine.ace_step.fast import Accelerated, accelerate
from engine.ace_step.fast.accelerate import difference
from engine.ace_step.runner import AceStepRunner
from engine.ace_step.sampler import Denoised, denoise
from engine.ace_step.schedule import timesteps
from engine.ace_step.song import Condition, Song
from engine.ace_step.vae import Vae
from engine.runner import Failed, Finished
from engine.schema import SAMPLE_RATE, EngineRequest
from engine.variants import VARIANTS

STEPS: Final = 8
SHIFT: Final = 3.0
ROWS: Final = ((240, 1), (30, 1), (60, 1), (30, 8), (60, 8), (240, 8))
TINY_ROWS: Final = ((2, 1), (1, 1), (1, 2))
GOALS: Final = {240: 0.7, 30: 0.12}
"""Seconds of a single song of that length, on one H200."""
TIMES_PIPELINE: Final = 3.0
SHARE_OF_FLOOR: Final = 0.5
LYRICS: Final = "\n".join(
    f"[{part}]\nthe night is long and I am on my way home again\nsinging to the moon above the city lights"
    for part in ("Verse", "Chorus", "Verse", "Chorus")
)

Figures = dict[str, Any]
Render = Callable[[float, int], dict[str, float]]


class Bench:
    """One run: the models, the clock, and what was measured so far."""

    def __init__(self, *, tiny: bool, budget: float, repeats: int) -> None:
        self.began = time.perf_counter()
        self.tiny, self.budget, self.repeats = tiny, budget, repeats
        self.device = torch.device("cpu" if tiny else "cuda")
        self.gpu = "CPU" if tiny else torch.cuda.get_device_name()
        print(f"torch {torch.__version__} on {self.gpu}", flush=True)
        self.pipeline = tiny_pipeline() if tiny else xl_pipeline(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.bundle = bundle_of(self.pipeline, self.device)
        print(f"weights made in {self.spent:.0f} s", flush=True)
        self.rates: Rates = measure_rates(self.device, self.bundle.dtype)
        self.floor = Floor(self.bundle, self.rates, steps=STEPS)
        print(f"{self.floor.explanation()}\n", flush=True)
        self.asked = 0
        began = time.perf_counter()
        self.fast: Accelerated = accelerate(
            self.bundle, everywhere=tiny, compiler=None if tiny else "default"
        )
        self.loading = time.perf_counter() - began
        print(f"fast parts chosen, compiled and compared in {self.loading:.1f} s:", flush=True)
        print(f"{self.fast.report()}\n", flush=True)
        self.runner = AceStepRunner(
            self.bundle, VARIANTS["xl-turbo"], dit=self.fast.dit, vae=self.fast.vae, threads=None
        )

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.began

    def requests(self, seconds: float, batch: int) -> list[EngineRequest]:
        """Songs with words that no cache has seen, each its own."""
        self.asked += 1
        return [
            EngineRequest(
                id=str(place),
                model=self.bundle.name,
                prompt=f"upbeat indie pop number {self.asked}, take {place}, bright guitars, warm synth",
                lyrics=f"{LYRICS}\n{self.asked} {place}",
                frames=round(seconds * SAMPLE_RATE),
                seed=self.asked * 100 + place,
                num_inference_steps=STEPS,
                shift=SHIFT,
            )
            for place in range(batch)
        ]

    def ours(self, seconds: float, batch: int) -> dict[str, float]:
        """From requests to samples in memory; the phases of the slowest song."""
        phases: dict[str, float] = {}
        for event in self.runner.run(self.requests(seconds, batch), lambda _: True):
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                assert event.result.samples.shape[1] == round(seconds * SAMPLE_RATE)
                for name, spent in (event.result.phases or {}).items():
                    phases[name] = max(phases.get(name, 0.0), spent)
        return phases

    def theirs(self, seconds: float, batch: int) -> dict[str, float]:
        """The same of the pipeline: from words to samples in memory; in tiles once it fails without."""
        requests = self.requests(seconds, batch)
        try:
            self._piped(requests, seconds)
        except RuntimeError:  # out of memory, or more samples than its kernels can count
            if self.pipeline.vae.use_tiling:
                raise
        else:
            return {}
        self.pipeline.vae.enable_tiling()
        self._clear()
        self._piped(requests, seconds)
        return {}

    def _piped(self, requests: list[EngineRequest], seconds: float) -> None:
        made = self.pipeline(
            prompt=[request.prompt for request in requests],
            lyrics=[request.lyrics for request in requests],
            audio_duration=seconds,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            shift=SHIFT,
            generator=[torch.Generator(self.device).manual_seed(request.seed) for request in requests],
            output_type="np",
        )
        assert made.audios.shape[0] == len(requests)

    def timed(self, render: Render, seconds: float, batch: int) -> Figures:
        """Median of the repeats behind a warm-up, and the most memory; tiny songs are rendered once."""
        self._clear()
        times: list[float] = []
        phases: dict[str, float] = {}
        try:
            for _ in range(1 if self.tiny else 1 + self.repeats):
                self._synchronise()
                began = time.perf_counter()
                phases = render(seconds, batch)
                self._synchronise()
                times.append(time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - one row that fails must not cost the others
            return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"}
        timed = times[1:] or times
        figures: Figures = {"seconds": statistics.median(timed), "first": times[0], "times": timed}
        if self.device.type == "cuda":
            figures["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return figures | ({"phases": phases} if phases else {})

    def row(self, seconds: int, batch: int) -> Figures:
        """One length and batch: ours, theirs, and the floor."""
        row: Figures = {"song_s": seconds, "batch": batch, "floor": self.floor.seconds(seconds, batch)}
        # Far above what either should need for a second of song; the constants are for graphs and compilers.
        cost = 0.0 if self.tiny else (1 + self.repeats) * batch * seconds
        for name, render, expected in (
            ("ours", self.ours, 20 + 0.004 * cost),
            ("pipeline", self.theirs, 5 + 0.012 * cost),
        ):
            if self.spent + expected > self.budget:
                row[name] = {"failed": "skipped: no time left"}
            else:
                row[name] = self.timed(render, seconds, batch)
        row["pipeline"]["tiled"] = self.pipeline.vae.use_tiling
        self.pipeline.vae.disable_tiling()
        return row

    def planner(self) -> Figures:
        """Of the planner's step, if there is time for it."""
        if self.spent + 30 > self.budget:
            return {"planner": "skipped: no time left"}
        self._clear()
        return measure_planner(self.device, self.bundle.dtype, tiny=self.tiny)

    def profile(self, seconds: int) -> Figures:
        """The kernels of one song of ours that take the most time."""
        self.ours(seconds, 1)
        with torch.profiler.profile() as profile:
            self.ours(seconds, 1)
            self._synchronise()
        averages = profile.key_averages()
        key = "self_cpu_time_total" if self.tiny else "self_device_time_total"
        return {"kernels": "\n" + averages.table(sort_by=key, row_limit=25, max_name_column_width=80)}

    def exactness(self, seconds: float) -> Figures:
        """How far a song is from the plain path's, from itself made again, and from itself in a batch."""
        songs = self._songs(seconds)
        plain = self._latents(Dit(self.bundle.dit), songs[:1])[0]
        alone = self._latents(self.fast.dit, songs[:1])[0]
        again = self._latents(self.fast.dit, songs[:1])[0]
        beside = self._latents(self.fast.dit, songs)[0]
        chunks = {
            name: torch.cat([chunk.cpu() for chunk in vae.decode(alone[:600])], dim=1)
            for name, vae in (("fast", self.fast.vae), ("plain", Vae(self.bundle.vae)))
        }
        return {
            "latents, fast against plain": difference(alone, plain),
            "latents, in a batch against alone": difference(beside, alone),
            "latents, made again: equal bits": bool(torch.equal(alone, again)),
            "sound of the same latents, fast against plain": difference(chunks["fast"], chunks["plain"]),
        }

    def _songs(self, seconds: float) -> list[Song]:
        """Two of different lengths and words."""
        generator = torch.Generator().manual_seed(1)
        width = self.bundle.channels
        config: Any = getattr(self.bundle.dit, "config")  # noqa: B009 - diffusers' configs are untyped

        def draw(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator).to(self.device)

        return [
            Song(
                id=str(frames),
                noise=draw(frames, width),
                context=draw(frames, 2 * width).to(self.bundle.dtype),
                condition=Condition(draw(words, config.encoder_hidden_size).to(self.bundle.dtype)),
                timesteps=timesteps(STEPS, SHIFT),
            )
            for frames, words in ((round(25 * seconds), 300), (round(25 * seconds * 0.6), 170))
        ]

    def _latents(self, dit: Denoiser[Any, Any], songs: list[Song]) -> list[torch.Tensor]:
        found = {e.id: e.latents for e in denoise(dit, songs, lambda _: True) if isinstance(e, Denoised)}
        return [found[song.id] for song in songs]

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _clear(self) -> None:
        forget = getattr(self.fast.dit, "forget", None)
        if forget is not None:
            forget()  # recorded steps keep memory, and the pipeline may need all of it
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def bundle_of(pipeline: Any, device: torch.device) -> Bundle:
    """The pipeline's own modules as the engine's."""
    return Bundle(
        name="xl-turbo",
        kind="turbo",
        dit=pipeline.transformer,
        condition_encoder=pipeline.condition_encoder,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        vae=pipeline.vae,
        audio_tokenizer=pipeline.audio_tokenizer,
        audio_detokenizer=pipeline.audio_token_detokenizer,
        device=device,
        dtype=next(pipeline.transformer.parameters()).dtype,
        channels=pipeline.transformer.config.audio_acoustic_hidden_dim,
    )


def finished(row: Figures) -> Figures:
    """The row with its ratios."""
    ours, theirs = row["ours"].get("seconds"), row["pipeline"].get("seconds")
    if ours:
        row["share_of_floor"] = row["floor"]["total"] / ours
        row["times_pipeline"] = theirs / ours if theirs else None
    return row


def line(row: Figures) -> str:
    """A row of the table."""

    def shown(figures: Figures, key: str, pattern: str) -> str:
        return format(figures[key], pattern) if figures.get(key) is not None else "-"

    ours, theirs = row["ours"], row["pipeline"]
    phases = " ".join(f"{name} {spent:.3f}" for name, spent in ours.get("phases", {}).items())
    cells = (
        f"{row['song_s']:>5} s x {row['batch']}",
        f"{shown(ours, 'seconds', '.3f'):>9}",
        f"{shown(theirs, 'seconds', '.3f'):>9}",
        f"{shown(row, 'times_pipeline', '.2f'):>7}",
        f"{row['floor']['total']:>9.4f}",
        f"{shown(row, 'share_of_floor', '.0%'):>7}",
        f"{shown(ours, 'peak_gb', '.1f'):>7}",
        f"{shown(theirs, 'peak_gb', '.1f'):>7}",
    )
    notes = [f"{name}: {row[name]['failed']}" for name in ("ours", "pipeline") if "failed" in row[name]]
    notes += ["pipeline: decoded in tiles"] if theirs.get("tiled") else []
    return "  ".join([*cells, phases, *notes])


HEAD: Final = "  ".join(
    (
        f"{'songs':>9}",
        f"{'ours s':>9}",
        f"{'pipeline':>9}",
        f"{'times':>7}",
        f"{'floor s':>9}",
        f"{'share':>7}",
        f"{'GB':>7}",
        f"{'GB pipe':>7}",
        "phases of ours",
    )
)


def goals(rows: list[Figures]) -> dict[str, bool | None]:
    """Whether each goal is met; None: not measured."""
    single = {row["song_s"]: row for row in rows if row["batch"] == 1}
    verdicts: dict[str, bool | None] = {}
    for length, most in GOALS.items():
        row = single.get(length, {})
        took, share, times = (
            row.get("ours", {}).get("seconds"),
            row.get("share_of_floor"),
            row.get("times_pipeline"),
        )
        verdicts[f"{length} s in at most {most} s"] = None if took is None else took <= most
        verdicts[f"{length} s: {TIMES_PIPELINE:g} times the pipeline"] = (
            None if times is None else times >= TIMES_PIPELINE
        )
        verdicts[f"{length} s: {SHARE_OF_FLOOR:.0%} of the floor's speed"] = (
            None if share is None else share >= SHARE_OF_FLOOR
        )
    return verdicts


def measure(bench: Bench, save: Callable[[Figures], None], *, profile: bool) -> None:
    """Everything, printed and saved as it comes."""
    document: Figures = {
        "torch": torch.__version__,
        "device": bench.gpu,
        "steps": STEPS,
        "loading_s": bench.loading,
        "rates": bench.rates.as_dict(),
        "parts": bench.fast.report().splitlines(),
        "exactness": attempted(lambda: bench.exactness(2 if bench.tiny else 30)),
        "rows": [],
    }
    print(f"{told(document['exactness'])}\n\n{HEAD}", flush=True)
    for seconds, batch in TINY_ROWS if bench.tiny else ROWS:
        row = finished(bench.row(seconds, batch))
        document["rows"].append(row)
        print(line(row), flush=True)
        save(document)
    document["planner"] = attempted(bench.planner)
    print(f"\n{told(document['planner'])}", flush=True)
    document["goals"] = goals(document["rows"])
    print("\ngoals, set for one NVIDIA H200:")
    for name, met in document["goals"].items():
        print(f"  {name}: {'not measured' if met is None else 'met' if met else 'MISSED'}")
    document["seconds"] = bench.spent
    print(f"\n{bench.spent:.0f} s in all", flush=True)
    save(document)
    for seconds, _ in (TINY_ROWS if bench.tiny else ROWS)[:2] if profile else ():
        print(f"\n{seconds} s\n{told(attempted(partial(bench.profile, seconds)))}", flush=True)


def told(figures: Figures) -> str:
    """One line each."""
    return "\n".join(
        f"{name}: {format(value, '.2g') if isinstance(value, float) else value}"
        for name, value in figures.items()
    )


def attempted(work: Callable[[], Figures]) -> Figures:
    """What `work` found, or why it found nothing: one part that fails must not cost the others."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - drivers fail in any way
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="on the CPU, with a checkpoint of a megabyte")
    parser.add_argument("--budget", type=float, default=420.0, help="seconds, for everything")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement, behind a warm-up")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--profile", action="store_true", help="print what took the time, at the end")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --tiny runs without one")
    out = os.environ.get("OUT")
    paths = [
        path for path in (options.json, Path(out) / "engine_gpu.json" if out else None) if path is not None
    ]

    def save(document: Figures) -> None:
        for path in paths:
            path.write_text(json.dumps(document, indent=1) + "\n")

    bench = Bench(tiny=options.tiny, budget=options.budget, repeats=options.repeats)
    measure(bench, save, profile=options.profile)


if __name__ == "__main__":
    main()
