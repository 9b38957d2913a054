"""What can be set about a search; see `compressor.options`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from compressor.errors import UsageError
from compressor.options import LOSSES, _among, _at_least, _positive, _setting


@dataclass(frozen=True)
class SearchOptions:
    """How AGD searches for a generator."""

    pretrain: int = _setting(400, "steps in which the supernet's weights learn, before its architecture does")
    steps: int = _setting(
        400, "steps of the search: each trains the architecture of every budget, then the weights"
    )
    batch: int = _setting(2, "pictures in a step")
    crop: int | None = _setting(None, "side of the training pictures; the teacher's usual size if not given")
    learning_rate: float = _setting(
        1e-3, "Adam's, for the weights; in pretraining and in search it rises and falls along a cosine"
    )
    architecture_learning_rate: float | None = _setting(
        None, "Adam's, for the architecture; what the search's length needs if not given (published: 3e-4)"
    )
    operators: str = _setting(
        "sampled",
        "what a step evaluates: sampled (one operator a position, two to choose by) or mixture "
        "(all of them, as published)",
    )
    widths: str = _setting(
        "groups",
        "what tells a width its worth: groups (its own last channels) or whole (all of its output, "
        "as published)",
    )
    start: str = _setting(
        "budget",
        "where the architecture starts: budget (its expected cost is the budget) or uniform (as published)",
    )
    published: bool = _setting(
        False,
        "search as published: mixture, whole, uniform, learning rate 3e-4, temperature 1, widest and "
        "narrowest in every step; the budget's control stays ours",
    )
    perceptual: Path | None = _setting(
        None, "VGG16 or VGG19 weights for feature losses; vgg16 or vgg19 downloads torchvision's"
    )
    loss: str | None = _setting(
        None,
        "pixel; or, with perceptual: relative, style (as AGD translates), feature (as AGD upscales); "
        "relative or pixel if not given",
    )
    truth: bool = _setting(
        False, "super resolution: --images holds true, large pictures, and inputs are made from them"
    )
    temperature: float = _setting(3.0, "of the Gumbel-softmax at first")
    temperature_end: float = _setting(0.3, "of the Gumbel-softmax in the end; falls geometrically")
    randoms: int = _setting(1, "random networks in a pretraining step, beside the widest and the narrowest")
    check_every: int = _setting(50, "steps between landings that become candidates")
    finalists: int = _setting(8, "further candidates, drawn by the final probabilities within the budget")
    descendants: int = _setting(
        64, "further ones, changed from the best, each within the budget; published: none"
    )
    trials: int = _setting(
        8, "candidates trained on their own from fresh weights, the better half longer; published: none"
    )
    trial_steps: int = _setting(
        100, "steps of each in the first round of trials; twice as many in every further one"
    )
    validation: int = _setting(8, "held-out crops that candidates are compared on")
    device: str = _setting("auto", "auto, cpu or cuda")
    precision: str = _setting("fp32", "forward passes in fp32 or bf16 (autocast); weights stay in fp32")
    channels_last: bool = _setting(False, "keep pictures and kernels in NHWC order, which GPUs often prefer")
    accumulate: int = _setting(1, "micro-batches of a step's batch, to save memory")
    samples: int = _setting(8, "sample pictures kept beside the result, spread over the steps; 0: none")
    tensorboard: Path | None = _setting(None, "folder for TensorBoard's event files; none if not given")

    def __post_init__(self) -> None:
        _at_least("search", self, pretrain=0, steps=1, batch=1, crop=16, randoms=0, check_every=1)
        _at_least("search", self, finalists=0, descendants=0, validation=1)
        _at_least("search", self, trials=0, trial_steps=1)
        _positive("search", self, "learning_rate", "temperature", "temperature_end")
        if self.architecture_learning_rate is not None:
            _positive("search", self, "architecture_learning_rate")
        _among("search.operators", self.operators, ("sampled", "mixture"))
        _among("search.widths", self.widths, ("groups", "whole"))
        _among("search.loss", self.loss or "pixel", LOSSES)
        if self.loss not in (None, "pixel") and self.perceptual is None:
            raise UsageError(
                f"search.loss {self.loss} compares features, and there are no weights for them",
                fix="give search.perceptual: a file of VGG16 or VGG19, or vgg16 to download torchvision's",
            )
        _among("search.start", self.start, ("budget", "uniform"))
        _among("search.device", self.device, ("auto", "cpu", "cuda"))
        _among("search.precision", self.precision, ("fp32", "bf16"))
        _at_least("search", self, accumulate=1, samples=0)
        if self.batch % self.accumulate:
            raise UsageError(
                "search.batch cannot be divided into as many micro-batches",
                got=f"batch {self.batch}, accumulate {self.accumulate}",
                allowed=f"a batch that is a multiple of {self.accumulate}",
            )

    @property
    def compile(self) -> bool:
        """A supernet's steps differ from each other; there is nothing to compile."""
        return False

    @property
    def effective(self) -> SearchOptions:
        """These settings, with `published` put into the ones it stands for."""
        if not self.published:
            return self
        return replace(
            self,
            operators="mixture",
            widths="whole",
            start="uniform",
            architecture_learning_rate=self.architecture_learning_rate or 3e-4,
            temperature=1.0,
            temperature_end=1.0,
            randoms=2,
            descendants=0,
            trials=0,
        )
