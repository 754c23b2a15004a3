"""Tiny models, built once a session: the oracle (AceStepPipeline) and our bundle of the very same modules."""

from collections.abc import Iterator

import pytest
import torch
from diffusers import AceStepPipeline

from engine.ace_step.bundle import Bundle
from tests.checkpoints.tiny import build_pipeline


def as_bundle(pipeline: AceStepPipeline, kind: str) -> Bundle:
    """The oracle's own modules, not copies: any difference is then a difference of the loops."""
    return Bundle(
        name=f"tiny-{kind}",
        kind=kind,
        dit=pipeline.transformer,
        condition_encoder=pipeline.condition_encoder,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        vae=pipeline.vae,
        audio_tokenizer=pipeline.audio_tokenizer,
        audio_detokenizer=pipeline.audio_token_detokenizer,
        device=torch.device("cpu"),
        dtype=torch.float32,
        channels=pipeline.transformer.config.audio_acoustic_hidden_dim,
    )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", name="turbo")
def _turbo() -> AceStepPipeline:
    return _oracle("turbo")


@pytest.fixture(scope="session", name="base")
def _base() -> AceStepPipeline:
    return _oracle("base")


@pytest.fixture(scope="session", name="turbo_bundle")
def _turbo_bundle(turbo: AceStepPipeline) -> Bundle:
    return as_bundle(turbo, "turbo")


@pytest.fixture(scope="session", name="base_bundle")
def _base_bundle(base: AceStepPipeline) -> Bundle:
    return as_bundle(base, "base")


def _oracle(kind: str) -> AceStepPipeline:
    pipeline = build_pipeline(kind)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
