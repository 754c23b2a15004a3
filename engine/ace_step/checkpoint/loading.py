"""Checkpoint to Bundle: modules are built without numbers, and every tensor goes straight to its place.

No module is initialised, and beside the modules only one tensor at a time is in memory.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import torch
from diffusers import AceStepTransformer1DModel, AutoencoderOobleck
from diffusers.pipelines.ace_step.modeling_ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)
from safetensors import safe_open
from torch import nn
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config, Qwen3Model

from engine.ace_step.bundle import Bundle
from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.faults import END_OF_TEXT, faults_of, kind_of
from engine.ace_step.checkpoint.files import Stored, listed
from engine.ace_step.checkpoint.pieces import Checkpoint, Piece
from engine.ace_step.checkpoint.silence import read_silence
from engine.ace_step.checkpoint.sources import open_source

Module = TypeVar("Module", bound=nn.Module)

_FLOATS: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_bundle(
    source: str | Path,
    *,
    name: str,
    device: torch.device | str,
    dtype: torch.dtype,
    donor: str | Path | None = None,
    vae_dtype: torch.dtype | None = None,
) -> Bundle:
    """Load a model from a folder or a repository that was pulled, in either layout.

    `donor` has what `source` lacks, as have those named in `source` itself (`source+donor`). The autoencoder
    is loaded as `vae_dtype`, or as the rest. Downloads nothing; raises CheckpointError saying what to do.
    """
    checkpoint = open_source(source, donor=donor)
    problems = list(faults_of(checkpoint, str(source)))
    if problems:
        raise CheckpointError(f"{source} cannot be served: {'; '.join(problems)}")
    modules = {role: (piece, _build(piece)) for role, piece in checkpoint.pieces.items()}
    for piece, module in modules.values():
        _check_names(piece, module, silence=checkpoint.silence)
    where = torch.device(device)
    for role, (piece, module) in modules.items():
        _fill(piece, module, checkpoint.silence, where, vae_dtype or dtype if role == "vae" else dtype)
    loaded: dict[str, Any] = {role: module for role, (_, module) in modules.items()}
    return Bundle(
        name=name,
        kind=kind_of(checkpoint, str(source)) or "",
        dit=loaded["transformer"],
        condition_encoder=loaded["condition_encoder"],
        text_encoder=loaded["text_encoder"],
        tokenizer=_text_tokenizer(checkpoint),
        vae=loaded["vae"],
        audio_tokenizer=loaded.get("audio_tokenizer"),
        audio_detokenizer=loaded.get("audio_token_detokenizer"),
        device=where,
        dtype=dtype,
        channels=int(loaded["transformer"].config.audio_acoustic_hidden_dim),
    )


def mismatches(checkpoint: Checkpoint) -> Iterator[str]:
    """Tensors that are missing, unknown or of another shape, without loading any."""
    for piece in checkpoint.pieces.values():
        try:
            _check_names(piece, _build(piece), silence=checkpoint.silence)
        except CheckpointError as error:
            yield str(error)


def _build(piece: Piece) -> nn.Module:
    """The module before its numbers; large parameters take no memory yet."""
    # The autoencoder is small, and multiplies its parameters while it is built, which is slow on hollow ones.
    mode = _Unset(hollow=piece.role != "vae")
    try:
        with torch.random.fork_rng(devices=[]), _quiet(), mode:
            return _BUILDERS[piece.role](piece).eval().requires_grad_(requires_grad=False)
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise CheckpointError(
            f"no {piece.role} can be built from its config in {piece.folder}: {error}"
        ) from error


class _Unset(TorchFunctionMode):
    """Layers allocate parameters by torch.empty and then draw random numbers: none are drawn.

    `hollow`: those parameters take no memory either. Constants are computed as ever.
    """

    def __init__(self, *, hollow: bool) -> None:
        super().__init__()
        self.hollow: Final = hollow

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        chosen = dict(kwargs or {})
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else chosen["tensor"]
        if self.hollow and func is torch.empty:
            chosen["device"] = "meta"
        return func(*args, **chosen)


def _text_encoder(piece: Piece) -> nn.Module:
    if piece.config.get("model_type") != "qwen3":
        raise ValueError(f"model_type is {piece.config.get('model_type')!r}, not 'qwen3'")
    return Qwen3Model(Qwen3Config(**piece.config))


def _diffusers(kind: Any) -> Callable[[Piece], nn.Module]:
    def build(piece: Piece) -> nn.Module:
        return cast(nn.Module, kind.from_config(piece.config))

    return build


_BUILDERS: Final[dict[str, Callable[[Piece], nn.Module]]] = {
    "transformer": _diffusers(AceStepTransformer1DModel),
    "condition_encoder": _diffusers(AceStepConditionEncoder),
    "vae": _diffusers(AutoencoderOobleck),
    "text_encoder": _text_encoder,
    "audio_tokenizer": _diffusers(AceStepAudioTokenizer),
    "audio_token_detokenizer": _diffusers(AceStepAudioTokenDetokenizer),
}


def _check_names(piece: Piece, module: nn.Module, *, silence: Path | None) -> None:
    """Exactly the tensors of the module, each of its shape."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if silence is not None:
        wanted.pop("silence_latent", None)
    missing, unknown = wanted.keys() - piece.tensors.keys(), piece.tensors.keys() - wanted.keys()
    complaints = []
    if missing:
        complaints.append(f"lacks {listed(missing)}")
    if unknown:
        complaints.append(f"has {listed(unknown)}, which this module does not know")
    for name in sorted(wanted.keys() & piece.tensors.keys()):
        if wanted[name] != piece.tensors[name].shape:
            complaints.append(f"has {name} as {piece.tensors[name].shape} instead of {wanted[name]}")
            break
    if complaints:
        raise CheckpointError(
            f"the {piece.role} in {piece.folder} {', '.join(complaints)}: its weights and its config.json "
            "are of different models, or the weights are incomplete"
        )


def _fill(
    piece: Piece, module: nn.Module, silence: Path | None, device: torch.device, dtype: torch.dtype
) -> None:
    state = dict(_tensors(piece.tensors.items(), device, dtype))
    if silence is not None and piece.role == "condition_encoder":
        state["silence_latent"] = _silence(silence).to(device, dtype)
    module.load_state_dict(state, strict=True, assign=True)
    module.requires_grad_(requires_grad=False)
    module.to(device)  # constants that are in no file
    _renew_weight_norms(module)
    left = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
    if left:
        raise CheckpointError(f"the {piece.role} in {piece.folder} was not filled: {listed(left)}")
    if piece.role == "condition_encoder" and not bool(torch.isfinite(state["silence_latent"]).all()):
        raise CheckpointError(f"silence_latent in {piece.folder} holds infinities or no numbers")


def _renew_weight_norms(module: nn.Module) -> None:
    """Weight normalisation keeps its product beside the factors, and made it from hollow ones."""
    for part in module.modules():
        for hook in part._forward_pre_hooks.values():  # noqa: SLF001 - the only place where they are listed
            if isinstance(hook, WeightNorm):
                hook(part, None)


def _tensors(
    wanted: Iterable[tuple[str, Stored]], device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """One by one, in the order of the files. A copy: what is only mapped would change with its file."""
    by_file: dict[Path, list[tuple[str, Stored]]] = {}
    for name, stored in wanted:
        by_file.setdefault(stored.path, []).append((name, stored))
    for path, entries in by_file.items():
        with safe_open(path, framework="pt", device="cpu") as file:
            for name, stored in sorted(entries, key=lambda entry: entry[1].start):
                yield name, file.get_tensor(stored.name).to(device, dtype, copy=True)


def _silence(path: Path) -> torch.Tensor:
    """[1, D, T] in the file, [1, T, D] in the module."""
    silence = read_silence(path)
    signed = torch.from_numpy(silence.bits.view(f"int{silence.bits.itemsize * 8}"))
    return signed.view(_FLOATS[silence.dtype]).transpose(1, 2).contiguous()


def _text_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.tokenizer, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint.tokenizer}: the tokenizer cannot be read: {error}") from error
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    if tokenizer("x").input_ids[-1] != end:
        raise CheckpointError(
            f"{checkpoint.tokenizer}: as transformers reads it, this tokenizer does not end texts with "
            f"{END_OF_TEXT}: take the released one"
        )
    return cast(PreTrainedTokenizerBase, tokenizer)


@contextmanager
def _quiet() -> Iterator[None]:
    """The autoencoder uses a function of torch that is called deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
