"""The released weights: where they are, and what they lack. Free of torch."""

from typing import Final

import msgspec


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One repository of the hub."""

    repository: str
    models: tuple[str, ...] = ()
    """Public models that it is the default of."""
    variant: str | None = None
    """As in `engine.VARIANTS`; None: no model of its own, a donor."""
    donor: str | None = None
    """Repository of what it lacks."""
    only: tuple[str, ...] = ()
    """Folders that are wanted of it; none: all."""
    donates: tuple[str, ...] = ()
    """Folders that are wanted of it when it is a donor."""


_BUNDLE: Final = "ACE-Step/Ace-Step1.5"
_XL_SFT: Final = "ACE-Step/acestep-v15-xl-sft-diffusers"
_SHARED: Final = ("vae", "Qwen3-Embedding-0.6B")
_AUDIO_TOKENIZERS: Final = ("audio_tokenizer", "audio_token_detokenizer")


def _diffusers(name: str, *models: str, variant: str, donor: str | None = None) -> Release:
    return Release(repository=f"ACE-Step/{name}-diffusers", models=models, variant=variant, donor=donor)


def _dit(name: str, *models: str, variant: str) -> Release:
    """Without autoencoder and text encoder, which every variant shares."""
    return Release(repository=f"ACE-Step/{name}", models=models, variant=variant, donor=_BUNDLE)


RELEASES: Final = {
    release.repository: release
    for release in (
        _diffusers("acestep-v15-xl-turbo", "ace-step-1.5-xl", variant="xl-turbo", donor=_XL_SFT),
        _diffusers("acestep-v15-xl-base", "ace-step-1.5-xl-base", variant="xl-base", donor=_XL_SFT),
        Release(
            repository=_XL_SFT,
            models=("ace-step-1.5-xl-sft",),
            variant="xl-sft",
            donates=_AUDIO_TOKENIZERS,
        ),
        Release(
            repository=_BUNDLE,
            models=("ace-step-1.5",),
            variant="turbo",
            only=("acestep-v15-turbo", *_SHARED),
            donates=_SHARED,
        ),
        _dit("acestep-v15-base", "ace-step-1.5-base", variant="base"),
        _dit("acestep-v15-sft", variant="sft"),
        _dit("acestep-v15-turbo-shift1", variant="turbo"),
        _dit("acestep-v15-turbo-shift3", variant="turbo"),
        _dit("acestep-v15-turbo-continuous", variant="turbo"),
        _dit("acestep-v15-xl-turbo", variant="xl-turbo"),
        _dit("acestep-v15-xl-base", variant="xl-base"),
        _dit("acestep-v15-xl-sft", variant="xl-sft"),
        Release(repository="Runware/acestep-v15-turbo-diffusers", variant="turbo", donor=_XL_SFT),
        Release(repository="ACE-Step/acestep-5Hz-lm-0.6B"),
        Release(repository="ACE-Step/acestep-5Hz-lm-1.7B"),
        Release(repository="ACE-Step/acestep-5Hz-lm-4B"),
    )
}
"""By repository. Those of `acestep-5Hz-lm` are planners."""


PLANNER: Final = "ACE-Step/acestep-5Hz-lm-1.7B"
"""What `antiphon models pull planner` brings if no other is configured."""


def release_of(model: str) -> Release | None:
    """The default release of a public model."""
    return next((release for release in RELEASES.values() if model in release.models), None)
