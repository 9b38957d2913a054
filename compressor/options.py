"""What can be set about pruning and distillation; also sections of a recipe. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.errors import UsageError

LOSSES = ("pixel", "relative", "style", "feature")
SCHEDULES = ("cosine", "one-cycle", "agd-st", "agd-sr-a", "agd-sr-b")


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class RunningOptions:
    """How networks are run and watched while they are trained, whatever the task."""

    device: str = _setting("auto", "auto, cpu or cuda")
    precision: str = _setting("fp32", "forward passes in fp32 or bf16 (autocast); weights stay in fp32")
    channels_last: bool = _setting(False, "keep pictures and kernels in NHWC order, which GPUs often prefer")
    accumulate: int = _setting(
        1, "micro-batches of a step's batch, to save memory; batch norm and the feature loss see only theirs"
    )
    compile: bool = _setting(False, "run forward passes through torch.compile, where that can be done")
    samples: int = _setting(8, "sample pictures kept beside the result, spread over the steps; 0: none")
    tensorboard: Path | None = _setting(None, "folder for TensorBoard's event files; none if not given")


@dataclass(frozen=True)
class PruneOptions(RunningOptions):
    """How CoroNet searches for the channels to keep."""

    steps: int = _setting(400, "optimiser steps until the generator is materialised at its budget")
    batch: int = _setting(2, "pictures in a step")
    crop: int | None = _setting(
        None, "side of the training pictures; the generator's usual size if not given"
    )
    learning_rate: float = _setting(5e-4, "Adam's, for the weights")
    latent_learning_rate: float = _setting(1e-3, "Adam's, for the latent entries")
    final_rate: float = _setting(
        1.0,
        "share of the learning rates left at the last step, to which they fall along a cosine: 1 where "
        "distillation follows, 0 where nothing does",
    )
    hypernet: str = _setting(
        "gated", "how latent entries make weights: gated, collapsed or dhp (as published)"
    )
    proximal: str = _setting(
        "targeted",
        "which latent entries shrink: targeted (those that would not survive the landing) or "
        "l1 (all alike, as published)",
    )
    perceptual: Path | None = _setting(None, "VGG19 weights (.safetensors) for an additional feature loss")
    round: int = _setting(1, "widths are multiples of this where the budget allows: 8 is fast on phones")

    def __post_init__(self) -> None:
        _at_least("prune", self, steps=1, batch=1, crop=16, round=1)
        _positive("prune", self, "learning_rate", "latent_learning_rate")
        if not 0 <= self.final_rate <= 1:
            raise UsageError("prune.final_rate must lie in [0, 1]", got=self.final_rate)
        _among("prune.hypernet", self.hypernet, ("gated", "collapsed", "dhp"))
        _among("prune.proximal", self.proximal, ("targeted", "l1"))
        _among("prune.device", self.device, ("auto", "cpu", "cuda"))
        _engine("prune", self)

    @property
    def lesson(self) -> dict[str, float]:
        """Weights of the distances to true pictures and to the original's."""
        return {"truth": 0.0, "distillation": 1.0}


@dataclass(frozen=True)
class SuperResolutionOptions(PruneOptions):
    """How CoroNet searches while the generator is trained towards true pictures."""

    distillation: float = _setting(
        0.0, "weight of the distance to the original's pictures, beside 1 for the true ones; 0: no teacher"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("prune", self, distillation=0)

    @property
    def lesson(self) -> dict[str, float]:
        """Weights of the distances to true pictures and to the original's."""
        return {"truth": 1.0, "distillation": self.distillation}


@dataclass(frozen=True)
class AdversarialOptions(RunningOptions):
    """How CoroNet prunes while it trains against discriminators (Pix2Pix, CycleGAN)."""

    epochs: int = _setting(100, "epochs at the full learning rate")
    epochs_decay: int = _setting(100, "epochs after that, over which it falls linearly to zero")
    search_epochs: int = _setting(50, "epochs until the budget is reached, at most")
    after: str = _setting(
        "remaining", "what follows pruning: remaining (the epochs that are left) or full (all of them again)"
    )
    scratch: bool = _setting(False, "train from fresh weights; only the architecture is taken")
    start: str = _setting(
        "plain",
        "from scratch, how the hypernetwork starts: plain (it makes the network's own fresh weights) or "
        "dhp (as published)",
    )
    batch: int = _setting(1, "pictures in a step")
    crop: int | None = _setting(
        None, "side of the training pictures; the generator's usual size if not given"
    )
    load: int | None = _setting(None, "side they are scaled to before; 286/256 of the crop if not given")
    flip: bool = _setting(True, "mirror half of the pictures")
    learning_rate: float = _setting(2e-4, "Adam's, for generators and discriminators")
    latent_learning_rate: float = _setting(2e-4, "Adam's, for the latent entries, at the full learning rate")
    beta1: float = _setting(0.5, "Adam's first decay")
    gan: str | None = _setting(
        None, "adversarial loss: vanilla or lsgan; vanilla for Pix2Pix, lsgan for CycleGAN if not given"
    )
    l1: float = _setting(100.0, "Pix2Pix: weight of the L1 distance to the wanted picture")
    cycle: float = _setting(10.0, "CycleGAN: weight of coming back to the same picture")
    identity: float = _setting(
        0.5, "CycleGAN: weight, in units of cycle, of leaving alone what is already translated"
    )
    pool: int = _setting(50, "CycleGAN: earlier pictures kept for the discriminators")
    distillation: float = _setting(0.0, "weight of the distance to the original's pictures; 0: no teacher")
    discriminator_width: int = _setting(64, "channels after the discriminator's first convolution")
    discriminator_layers: int = _setting(
        3, "the discriminator's convolutions of stride 2; 3 sees 70x70 pixels"
    )
    hypernet: str = _setting(
        "gated", "how latent entries make weights: gated, collapsed or dhp (as published)"
    )
    proximal: str = _setting(
        "targeted", "which latent entries shrink: targeted (those that would not survive the landing) or l1"
    )
    shrink: float | None = _setting(
        None, "l1: what every entry loses in a step; what the search's length needs if not given"
    )
    check_every: int = _setting(100, "steps between looks whether the budget is reached")
    stop_within: float = _setting(
        0.01, "how near its share must be to the target to land before the search's last step"
    )
    round: int = _setting(1, "widths are multiples of this where the budget allows: 8 is fast on phones")

    def __post_init__(self) -> None:
        section = "adversarial"
        _at_least(section, self, epochs=1, epochs_decay=0, search_epochs=1, batch=1, crop=16, load=16, pool=0)
        _at_least(section, self, discriminator_width=1, discriminator_layers=1, check_every=1, round=1)
        _at_least(section, self, l1=0, cycle=0, identity=0, distillation=0, stop_within=0)
        _positive(section, self, "learning_rate", "latent_learning_rate")
        if not 0 <= self.beta1 < 1:
            raise UsageError("adversarial.beta1 must lie in [0, 1)", got=self.beta1)
        if self.shrink is not None:
            _positive(section, self, "shrink")
        _among("adversarial.after", self.after, ("remaining", "full"))
        _among("adversarial.start", self.start, ("plain", "dhp"))
        _among("adversarial.gan", self.gan or "vanilla", ("vanilla", "lsgan"))
        _among("adversarial.hypernet", self.hypernet, ("gated", "collapsed", "dhp"))
        _among("adversarial.proximal", self.proximal, ("targeted", "l1"))
        _among("adversarial.device", self.device, ("auto", "cpu", "cuda"))
        _engine("adversarial", self)
        if self.search_epochs >= self.epochs + self.epochs_decay:
            raise UsageError(
                "adversarial.search_epochs leaves no epoch to train the pruned generator",
                got=self.search_epochs,
                allowed=f"less than epochs + epochs_decay = {self.epochs + self.epochs_decay}",
            )
        if self.scratch and self.distillation:
            raise UsageError("from scratch there is no original to learn from", fix="set distillation to 0")

    def search(self, epoch: int) -> PruneOptions:
        """The search's own settings; `epoch` is the number of steps in one."""
        return PruneOptions(
            steps=self.search_epochs * epoch,
            batch=self.batch,
            hypernet=self.hypernet,
            proximal=self.proximal,
            round=self.round,
            precision=self.precision,
            channels_last=self.channels_last,
            accumulate=self.accumulate,
            compile=self.compile,
        )


@dataclass(frozen=True)
class DistilOptions(RunningOptions):
    """How the pruned generator is trained against the original."""

    steps: int = _setting(800, "optimiser steps")
    batch: int = _setting(2, "pictures in a step")
    crop: int | None = _setting(
        None, "side of the training pictures; the generator's usual size if not given"
    )
    schedule: str = _setting(
        "cosine",
        "optimiser and learning rate over the steps: cosine or one-cycle; agd-st, agd-sr-a, agd-sr-b (as "
        "published, scaled to the steps)",
    )
    learning_rate: float | None = _setting(
        None, "the schedule's highest; its own if not given (5e-4 for cosine)"
    )
    ema: float = _setting(
        0.0, "share kept a step by the moving average of the weights, which becomes the result; 0: none"
    )
    perceptual: Path | None = _setting(
        None, "VGG16 or VGG19 weights for feature losses; vgg16 or vgg19 downloads torchvision's"
    )
    loss: str | None = _setting(
        None,
        "pixel; or, with perceptual: relative (L1 and three layers), style (L1, content, style; as AGD "
        "translates), feature (L1 and conv5_4; as AGD upscales); relative or pixel if not given",
    )
    cached: bool = _setting(
        False,
        "run the teacher once for each picture, whole, and keep its outputs on disk; always so for files "
        "and folders",
    )
    truth: float = _setting(
        0.0,
        "super resolution: weight of the distance to the pictures of --images, inputs being made from them; "
        "0: they are inputs, and only the original's pictures count",
    )
    qat: bool = _setting(
        False,
        "quantisation-aware: train with INT8's rounding in the network and learn its ranges, which the "
        "INT8 files then use",
    )

    def __post_init__(self) -> None:
        _at_least("distill", self, steps=1, batch=1, crop=16, truth=0)
        if self.learning_rate is not None:
            _positive("distill", self, "learning_rate")
        if not 0 <= self.ema < 1:
            raise UsageError("distill.ema must lie in [0, 1)", got=self.ema)
        _among("distill.schedule", self.schedule, SCHEDULES)
        _among("distill.loss", self.loss or "pixel", LOSSES)
        if self.loss not in (None, "pixel") and self.perceptual is None:
            raise UsageError(
                f"distill.loss {self.loss} compares features, and there are no weights for them",
                fix="give distill.perceptual: a file of VGG16 or VGG19, or vgg16 to download torchvision's",
            )
        _among("distill.device", self.device, ("auto", "cpu", "cuda"))
        _engine("distill", self)
        if self.qat and self.precision != "fp32":
            raise UsageError(
                "distill.qat imitates INT8's rounding, which bf16 would round once more",
                got=f"distill.precision {self.precision}",
                allowed="fp32",
            )


def deciding(options: Any) -> dict[str, Any]:
    """The settings that a result depends on: all but where it is watched."""
    return {name: value for name, value in vars(options).items() if name != "tensorboard"}


def _engine(section: str, options: Any) -> None:
    """Checks of how forward passes are run, alike for all tasks."""
    _among(f"{section}.precision", options.precision, ("fp32", "bf16"))
    _at_least(section, options, accumulate=1, samples=0)
    if options.batch % options.accumulate:
        raise UsageError(
            f"{section}.batch cannot be divided into as many micro-batches",
            got=f"batch {options.batch}, accumulate {options.accumulate}",
            allowed=f"a batch that is a multiple of {options.accumulate}",
        )


def _at_least(section: str, options: object, **smallest: int) -> None:
    for name, least in smallest.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"{section}.{name} is too small", got=value, allowed=f"{least} or more")


def _positive(section: str, options: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(options, name) < float("inf"):
            raise UsageError(f"{section}.{name} must be a positive number", got=getattr(options, name))


def _among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is not one that we know", got=value, allowed=", ".join(allowed))
