"""State dicts: read from files without running any code in them, unwrapped, and loaded strictly."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import PocketganError, UsageError
from compressor.files import what_came
from compressor.generators.misfit import Misfit, Shapes, compare

# Where training programs put the generator's state dict, the best first: averaged weights are what BasicSR's
# and Real-ESRGAN's own test code uses.
WRAPPERS = (
    "params_ema",
    "params",
    "state_dict",
    "model_state_dict",
    "generator",
    "netG",
    "G",
    "g_ema",
    "model",
    "net",
    "weights",
)
# Names that wrap the generator as a part of something larger.
PREFIXES = ("module.", "_orig_mod.", "netG.", "generator.", "net_g.", "G.")

State = dict[str, torch.Tensor]


def read_state(path: Path) -> State:
    """The state dict in a .safetensors file or in one that torch.save wrote: {name: tensor}.

    Wrappers such as {"state_dict": ...} are taken off; prefixes such as "module." are left (`stripped`).

    Raises:
        PocketganError: there is no such file, it is damaged, holds a pickled module, or no state dict.
    """
    if not path.is_file():
        raise PocketganError(f"there is no file {path}")
    if path.suffix.lower() in (".onnx", ".tflite"):
        raise UsageError(
            f"{path} is an exported file: it can paint and teach, but not be pruned, trained or exported",
            allowed="the checkpoint or model folder that it was made of",
            fix=f"pocketgan apply {path} IMAGES --output-dir OUT, or pocketgan search --teacher {path}",
        )
    if path.stat().st_size == 0:
        raise PocketganError(f"{path} is empty", fix="copy or download it again")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = _unwrap(content, path)
    for key, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise PocketganError(
                f"{path} holds weights we cannot use: {key} is sparse, quantised or complex",
                allowed="dense floating point tensors",
            )
    return state


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the library raises its own error, ValueError, KeyError and OSError
        raise PocketganError(
            f"{path} cannot be read as safetensors", got=_brief(error), fix="copy or download it again"
        ) from error


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and TorchScript: we say it ourselves
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except Exception as error:  # damaged files make torch raise nearly anything
        if "TorchScript" in str(error):
            raise _refusal(path, error) from error
        raise PocketganError(
            f"{path} is damaged, or not a PyTorch checkpoint",
            got=_brief(error),
            allowed=".pth or .pt written by torch.save, .safetensors, or a folder of ours",
            fix="copy or download it again",
        ) from error


def _refusal(path: Path, error: Exception) -> PocketganError:
    """Why a pickle that wants to run code is not read, or that the pickle is damaged."""
    text = str(error)
    if "Unsupported global" in text or "GLOBAL " in text or "TorchScript" in text:
        return PocketganError(
            f"{path} holds a whole pickled module or other objects, not just weights; reading it could run "
            "any code, so we do not",
            got=_brief(error),
            fix="in the program that made it: torch.save(generator.state_dict(), 'weights.pth')",
        )
    return PocketganError(
        f"{path} is damaged, or not a PyTorch checkpoint",
        got=what_came(path, _brief(error)),
        allowed=".pth or .pt written by torch.save, .safetensors, or a folder of ours",
        fix="copy or download it again",
    )


def _brief(error: Exception) -> str:
    """The telling line of an error that may run over many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next(
        (line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else ""
    )
    return f"{type(error).__name__}: {telling[:200]}"


def _unwrap(content: object, path: Path) -> State:
    """The dict of tensors in what a training program saved."""
    for _ in range(4):
        if not isinstance(content, Mapping):
            raise PocketganError(
                f"{path} holds no state dict", got=type(content).__name__, allowed="{name: tensor}"
            )
        tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        inner = {str(k): v for k, v in content.items() if isinstance(v, Mapping) and _has_tensors(v)}
        if tensors and not inner:
            return tensors
        if not inner:
            raise PocketganError(
                f"{path} holds no weights", got=", ".join(map(str, list(content)[:8])) or "an empty dict"
            )
        known = [name for name in WRAPPERS if name in inner]
        if not known and len(inner) > 1:
            raise PocketganError(
                f"{path} holds several state dicts and none has a name we know",
                got=", ".join(list(inner)[:8]),
                allowed=", ".join(WRAPPERS),
                fix="save the generator's alone: torch.save(checkpoint['NAME'], 'generator.pth')",
            )
        content = inner[known[0]] if known else next(iter(inner.values()))
    raise PocketganError(f"{path} wraps its weights too deeply")


def _has_tensors(value: Mapping[Any, Any]) -> bool:
    return any(
        isinstance(item, torch.Tensor) or (isinstance(item, Mapping) and _has_tensors(item))
        for item in value.values()
    )


def stripped(state: State) -> list[State]:
    """The state dict as it is, then with each prefix taken off that programs put before its names.

    Where names begin with a prefix of `PREFIXES`, all others are left out (a discriminator beside the
    generator); any other first word is taken off only where all names share it.
    """
    forms = [state]
    while True:
        state = forms[-1]
        words = {key.partition(".")[0] + "." for key in state}
        prefix = next((p for p in PREFIXES if p in words), words.pop() if len(words) == 1 else None)
        part = {key[len(prefix) :]: v for key, v in state.items() if key.startswith(prefix)} if prefix else {}
        if not part or "" in part:
            return forms
        forms.append(part)


def shapes_of(state: Mapping[str, torch.Tensor]) -> Shapes:
    """{name: shape} of a state dict."""
    return {key: tuple(value.shape) for key, value in state.items()}


def settle_statistics(state: Mapping[str, torch.Tensor], expected: Iterable[str]) -> State:
    """Leave out running statistics that `expected` does not have; add the batch counters it has.

    Instance norms of PyTorch before 0.4 stored statistics, and a batch norm that uses each image's own
    needs none; batch norms before 0.4.1 did not count batches, and nothing reads that number here.
    """
    names, suffixes = set(expected), (".running_mean", ".running_var", ".num_batches_tracked")
    settled = {key: value for key, value in state.items() if key in names or not key.endswith(suffixes)}
    counters = [key for key in names - set(settled) if key.endswith(".num_batches_tracked")]
    return settled | {key: torch.tensor(0) for key in counters}


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], what: str) -> None:
    """Load every tensor into its place, in the module's own precision.

    A module that renames keys as it loads (a state dict pre-hook) is obeyed.

    Raises:
        PocketganError: a weight is not finite, or keys are missing, unexpected or of another shape; `what`
            is the message's first sentence.
    """
    try:
        keys = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes differ
        misfit = compare(shapes_of(module.state_dict()), shapes_of(state))
        raise PocketganError(what, got=misfit.describe() if misfit else _brief(error)) from error
    if keys.missing_keys or keys.unexpected_keys:
        fitting = len(state) - len(keys.unexpected_keys)
        misfit = Misfit(tuple(keys.missing_keys), tuple(keys.unexpected_keys), (), fitting)
        raise PocketganError(what, got=misfit.describe())
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise PocketganError(
                f"the checkpoint holds weights that are not numbers (NaN or infinite): {key}",
                fix="training diverged, or the file is damaged: take an earlier checkpoint",
            )
