"""Trains the quickstart's generator: photographs in, ink and watercolour out.

    python -m pocketgan.quickstart.train --photos DIR --output FOLDER --seed 0 --steps N

Paired image translation in the manner of Pix2Pix: the targets are painted by `painting.paint`, the generator
is CycleGAN's ResNet, the loss is L1 between the pictures plus L1 between their gradients. It has no norms: an
instance norm takes away how light and how colourful the whole photograph is, which the painting keeps.
Photographs come from `gather.py`. A run that was stopped goes on by the same command and ends in the same
weights. FOLDER is in our own format, in float16.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.data.images import list_images, read_image, to_pixels, to_tensor
from compressor.errors import PocketganError
from compressor.files import atomic
from compressor.generators import GeneratorSpec, ImageFormat, save
from compressor.metrics.fidelity import psnr, ssim
from compressor.progress import Progress
from pocketgan.quickstart.painting import paint
from pocketgan.quickstart.photographs import HELD_OUT, cut

if TYPE_CHECKING:
    import torch

RANGE = (-1.0, 1.0)
KEEP_EVERY = 250  # steps
Pair = tuple[np.ndarray, np.ndarray]  # photograph and painting, (H, W, 3) uint8


@dataclass(frozen=True)
class Options:
    """Everything that decides the weights, with the photographs.

    Attributes:
        steps: optimiser steps.
        seed: of the weights, the variants and the crops.
        width: channels after the first convolution.
        blocks: residual blocks.
        variants: versions of each photograph (scale, exposure, saturation, tint), painted beforehand.
        learning_rate: of Adam; it falls to zero along a cosine.
        gradients: weight of the L1 between horizontal and vertical differences.
        bfloat16: compute the convolutions in bfloat16, about twice as fast where the CPU has it.
    """

    steps: int = 5000
    seed: int = 0
    width: int = 24
    blocks: int = 4
    variants: int = 4
    learning_rate: float = 1e-3
    gradients: float = 1.0
    bfloat16: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the quickstart's generator.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--output", type=Path, required=True, help="folder for the generator")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; a busy machine is slower with more"
    )
    defaults = Options()
    for name in ("steps", "seed", "width", "blocks", "variants"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--gradients", type=float, default=defaults.gradients)
    parser.add_argument("--bfloat16", action="store_true")
    arguments = vars(parser.parse_args())
    photos, output, threads = arguments.pop("photos"), arguments.pop("output"), arguments.pop("threads")
    print(json.dumps(train(list_images(photos), output, Options(**arguments), threads=threads), indent=2))


def train(photos: Sequence[Path], output: Path, options: Options, *, threads: int = 1) -> dict[str, object]:
    """Train, and write the weights as float16 safetensors with `output`.json beside them.

    Returns:
        What the JSON file holds: options, losses over time, and PSNR and SSIM to the painted target on
        the held-out photographs.

    Raises:
        PocketganError: the photographs cannot be read, or `output` is half trained with other options.
    """
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(options.seed)
    spec = GeneratorSpec(
        "resnet", {"width": options.width, "blocks": options.blocks, "norm": "none"}, ImageFormat(multiple=4)
    )
    generator = spec.build().train()
    _initialise(generator)
    generator = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(generator.parameters(), lr=options.learning_rate, betas=(0.8, 0.99))
    kept = output.with_name(output.name + ".training.pt")
    start, history, seconds = _resume(kept, options, generator, optimiser)
    pairs = _pairs(photos, options)
    began, recent = time.monotonic() - seconds, []
    with Progress("train", total=options.steps, start=start) as progress:
        for step in range(start, options.steps):
            for group in optimiser.param_groups:
                group["lr"] = options.learning_rate * _schedule(step, options.steps)
            photographs, paintings = _batch(pairs, np.random.default_rng([options.seed, step]))
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
                output_pictures = generator(photographs.to(memory_format=torch.channels_last))
            loss = picture_loss(output_pictures.float(), paintings, options.gradients)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
            optimiser.step()
            recent.append(loss.item())
            if (step + 1) % KEEP_EVERY == 0 or step + 1 == options.steps:
                figures = {"step": step + 1, "loss": float(np.mean(recent)), **_held_out(generator)}
                history.append(figures)
                recent = []
                progress.note(json.dumps(figures))
                seconds = time.monotonic() - began
                _keep(kept, options, generator, optimiser, history, step + 1, seconds)
            progress.update(step + 1, loss=loss.item())
    provenance: dict[str, object] = {
        "made_by": "python -m pocketgan.quickstart.train",
        "licence": "Apache-2.0",
        "photographs": f"{len(photos)}, listed in training_photographs.csv",
        "options": asdict(options),
        "seconds": round(seconds),
        "torch": torch.__version__,
        "history": history,
    }
    save(spec, copy.deepcopy(generator).half(), output, provenance)
    kept.unlink(missing_ok=True)
    return provenance


def picture_loss(output: torch.Tensor, target: torch.Tensor, gradients: float) -> torch.Tensor:
    """L1 of the pictures plus `gradients` times L1 of their horizontal and vertical differences."""
    error = output - target
    along = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + gradients * (along + down)


def _schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: 100 steps of warm-up, then a cosine to zero."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))


def _pairs(photos: Sequence[Path], options: Options) -> list[Pair]:
    """Every variant of every photograph with its painting."""
    from PIL import Image

    pairs = []
    with Progress("paint", total=len(photos)) as progress:
        for index, path in enumerate(photos):
            original = Image.fromarray((read_image(path) * 255.0).round().astype(np.uint8))
            for variant in range(options.variants):
                rng = np.random.default_rng([options.seed, index, variant])
                short = rng.integers(272, max(320, min(480, min(original.size))) + 1)
                factor = short / min(original.size)
                size = (max(256, round(original.width * factor)), max(256, round(original.height * factor)))
                pixels = np.asarray(original.resize(size, Image.Resampling.LANCZOS), np.float32) / 255.0
                if variant:
                    pixels = _exposed(pixels, rng)
                pairs.append((_bytes(pixels), _bytes(paint(pixels))))
            progress.update(index + 1)
    return pairs


def _exposed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another exposure, saturation and tint of (H, W, 3) in [0, 1]; now and then other colours altogether."""
    if rng.random() < 0.25:
        pixels = pixels[..., rng.permutation(3)]
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + (pixels - grey) * rng.uniform(0.6, 1.4)
    tinted = np.clip(pixels * rng.uniform(0.9, 1.1, 3), 0.0, 1.0) ** rng.uniform(0.7, 1.35)
    return np.asarray(tinted, np.float32)


def _batch(pairs: Sequence[Pair], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random crops, turned and mirrored: four of 128x128 or, one time in three, one of 256x256."""
    import torch

    side, count = (256, 1) if rng.random() < 1 / 3 else (128, 4)
    chosen: list[list[np.ndarray]] = [[], []]
    for _ in range(count):
        pair = pairs[int(rng.integers(len(pairs)))]
        top, left = (rng.integers(length - side + 1) for length in pair[0].shape[:2])
        turns, mirrored = int(rng.choice([0, 0, 1, 3])), rng.random() < 0.5
        for pictures, picture in zip(chosen, pair, strict=True):
            crop = np.rot90(picture[top : top + side, left : left + side], turns)
            pictures.append(crop[:, ::-1] if mirrored else crop)
    photographs, paintings = (
        torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1.0))
        for pictures in chosen
    )
    return photographs, paintings


def _held_out(generator: torch.nn.Module) -> dict[str, float]:
    """Mean PSNR and SSIM between output and painting on the held-out photographs."""
    import torch

    scores = []
    for square in HELD_OUT.values():
        photograph = cut(*square)
        with torch.inference_mode():
            output = to_pixels(generator(to_tensor(photograph, RANGE)), RANGE)
        target = paint(photograph)
        scores.append((psnr(output, target), ssim(output, target)))
    return {"psnr": float(np.mean([s[0] for s in scores])), "ssim": float(np.mean([s[1] for s in scores]))}


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 255.0).astype(np.uint8)


def _initialise(generator: torch.nn.Module) -> None:
    """He initialisation; residual branches and the output begin small, which stands in for norms."""
    from torch import nn

    for name, layer in generator.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:  # weights are (input, output, 3, 3), and each output pixel sees one tap in stride^2
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                layer.weight.data *= layer.stride[0]
            if name.endswith("conv_block.5") or layer.out_channels == 3:
                layer.weight.data *= 0.1
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _keep(
    path: Path,
    options: Options,
    generator: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    history: list[dict[str, float]],
    step: int,
    seconds: float,
) -> None:
    import torch

    state = {
        "options": asdict(options),
        "generator": generator.state_dict(),
        "optimiser": optimiser.state_dict(),
        "history": history,
        "step": step,
        "seconds": seconds,
    }
    with atomic(path) as file:
        torch.save(state, file)


def _resume(
    path: Path, options: Options, generator: torch.nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, list[dict[str, float]], float]:
    """Restore a stopped run: (steps done, figures so far, seconds so far)."""
    import torch

    if not path.exists():
        return 0, [], 0.0
    state = torch.load(path, weights_only=True)
    if state["options"] != asdict(options):
        raise PocketganError(
            f"{path} was begun with other options",
            got=asdict(options),
            allowed=state["options"],
            fix=f"repeat those options, or delete {path}",
        )
    generator.load_state_dict(state["generator"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"], state["history"], state["seconds"]


if __name__ == "__main__":
    main()
