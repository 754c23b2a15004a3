"""Models, prices and ranges, as the vendor publishes them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """`nano_per_second`: published for turbo only; the others' are of our own choosing."""

    air: str
    turbo: bool
    large: bool
    steps: int
    nano_per_second: int


_MODELS = [
    Model("runware:ace-step@v1.5-base", turbo=False, large=False, steps=100, nano_per_second=300_000),
    Model("runware:ace-step@v1.5-turbo", turbo=True, large=False, steps=10, nano_per_second=100_000),
    Model("runware:ace-step@v1.5-xl-base", turbo=False, large=True, steps=100, nano_per_second=600_000),
    Model("runware:ace-step@v1.5-xl-sft", turbo=False, large=True, steps=100, nano_per_second=600_000),
    Model("runware:ace-step@v1.5-xl-turbo", turbo=True, large=True, steps=8, nano_per_second=200_000),
]
MODELS = {model.air: model for model in _MODELS} | {
    model.air.removeprefix("runware:").replace("@", "-").replace(".", "-"): model for model in _MODELS
}
"""By AIR id, and by slug: `ace-step-v1-5-xl-base`."""

LANGUAGES = frozenset(
    "ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt ro ru"
    " sa sk sr sv sw ta te th tl tr uk ur vi yue zh unknown".split()
)
SAMPLE_RATES = {"MP3": 44_100, "OGG": 48_000, "WAV": 48_000, "FLAC": 48_000}
"""Unless asked otherwise."""
FORMATS = tuple(SAMPLE_RATES)
MP3_KBPS = {
    rate: (8, 64) if rate <= 12_000 else (8, 160) if rate <= 24_000 else (32, 320)
    for rate in (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
}
OGG_KBPS = {
    (8_000, 1): (8, 40),
    (8_000, 2): (16, 80),
    (12_000, 1): (16, 48),
    (12_000, 2): (16, 96),
    (16_000, 1): (16, 96),
    (16_000, 2): (24, 192),
    (24_000, 1): (16, 80),
    (24_000, 2): (32, 160),
    (48_000, 1): (32, 224),
    (48_000, 2): (48, 256),
}


def bitrates(output_format: str, rate: int, channels: int) -> tuple[int, int] | None:
    """Least and most kbit/s; None where the rate is not offered."""
    return MP3_KBPS.get(rate) if output_format == "MP3" else OGG_KBPS.get((rate, channels))
