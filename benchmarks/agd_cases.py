"""What AGD is tried on: the cases of `benchmarks.agd_quality`, and the networks that are trained in each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.agd.space import SearchSpace
    from compressor.agd.teachers import Teacher
    from compressor.budget import Budget
    from compressor.generators import Generator

METHODS = ("search", "uniform", "uniform+input", "random")
MIXTURE = "mixture"  # the search with all operators evaluated at every step, as published; only if asked for
HORSES, ZEBRAS = "horse2zebra/testA_real", "horse2zebra/fake_horse2zebra_pretrained"
T91 = "sr/train_T91"


@dataclass(frozen=True)
class Case:
    """What is searched, and how all are trained.

    Attributes:
        teacher: a checkpoint, or with `outputs` nothing.
        pretrain, search, steps: of the supernet alone, of the search, of every network's own training.
        trials, trial_steps: of the search's best, see `SearchOptions`.
        crop, batch: of the training pictures.
    """

    budget: str
    images: str
    teacher: str | None = None
    factory: str | None = None
    outputs: str | None = None
    pretrain: int = 150
    search: int = 150
    trials: int = 16
    trial_steps: int = 75
    steps: int = 1500
    crop: int = 128
    batch: int = 1


IMDN: dict[str, Any] = {
    "teacher": "weights/IMDN_x4.pth",
    "factory": "benchmarks.networks.imdn:imdn_x4",
    "images": T91,
}
CASES = {
    "st-folder": Case("macs=1G", HORSES, outputs=ZEBRAS),
    "st-gan-compression": Case("macs=1G", HORSES, "weights/gan_compression_horse2zebra.pth"),
    "sr-11G": Case("macs=11G", **IMDN, crop=24, batch=4),
    "sr-110.9G": Case("macs=110.9G", **IMDN, crop=24, batch=4, trials=4),
}


def methods_of(name: str) -> tuple[str, ...]:
    """What is compared in a case: all upscalers here add to their input."""
    return (*METHODS, MIXTURE) if name.startswith("st") else ("search", "uniform", "random", MIXTURE)


def pictures(case: Case, data: Path) -> tuple[list[Path], list[Path]]:
    """To train on, and held out."""
    from compressor.data.images import list_images, split_held_out

    return split_held_out(list_images(data / case.images))


def open_teacher(case: Case, data: Path, images: list[Path]) -> Teacher:
    """The case's teacher, with the size that MACs are counted at."""
    from compressor.agd import teachers

    if case.outputs:
        return teachers.open_teacher(data / case.images, outputs=data / case.outputs, images=images)
    return teachers.open_teacher(data / str(case.teacher), factory=case.factory, stated={"size": (256, 256)})


def choose(
    case: Case, teacher: Teacher, training: list[Path], method: str, seed: int, device: str, folder: Path
) -> Generator:
    """The network of a method, with the supernet's weights if it was searched."""
    from compressor.agd.fitting import space_for
    from compressor.agd.options import SearchOptions
    from compressor.agd.search import search
    from compressor.budget import Budget

    budget = Budget.parse(case.budget)
    space = space_for(teacher.image, [budget])
    if method.startswith("uniform"):
        return uniform(teacher, budget, adding=method == "uniform+input")
    if method == "random":
        return random_network(space, budget, seed)
    options = SearchOptions(
        pretrain=case.pretrain,
        steps=case.search,
        batch=case.batch,
        crop=case.crop,
        operators="mixture" if method == MIXTURE else "sampled",
        trials=case.trials,
        trial_steps=case.trial_steps,
        validation=32,
        truth=teacher.image.scale > 1,
        device=device,
    )
    output = folder / "search"
    (found,) = search(space, teacher, training, [budget], output, options, seed=seed, resume=True)
    return found.generator


def random_network(space: SearchSpace, budget: Budget, seed: int) -> Generator:
    """One drawn within the budget's window, as the search's own finalists are before it has learnt."""
    import numpy as np

    from compressor.agd.limits import limits_of
    from compressor.agd.member import Member
    from compressor.agd.options import SearchOptions
    from compressor.agd.space import Choice
    from compressor.agd.supernet import Supernet, derive

    (limit,) = limits_of(space, [budget])
    member = Member(limit, space, SearchOptions())
    landing = member.land(np.random.default_rng([seed, 7]))
    return derive(Supernet(space, seed), Choice(landing.operators, landing.widths))


UPSCALER = """\
name: uniform
base: bilinear
image: {input_range: [0, 1], output_range: [0, 1], size: [256, 256]}
operators:
  plain: {body: [{conv: 3, bias: true}]}
  block: {body: [{conv: 3, bias: true}, relu, {conv: 3, bias: true}], shortcut: true}
  shuffle4: {body: [{conv: 3, bias: true, to: 16*out}, {shuffle: 4}]}
layers:
  - {name: first, operators: [plain], width: 64}
  - residual: 1
    layers:
      - {name: block, repeat: 16, operators: [block], width: 64}
      - {name: last, operators: [plain], width: 64}
  - {name: tail, operators: [shuffle4], width: 3}
"""
TRANSLATOR = """\
name: uniform
norm: instance
base: input
operators:
  stem: {body: [{conv: 7}, norm, relu]}
  down: {body: [{conv: 3, stride: 2}, norm, relu]}
  block: {body: [{conv: 3}, norm, relu, {conv: 3}, norm], shortcut: true}
  up: {body: [{transposed: 3}, norm, relu]}
  picture: {body: [{conv: 7}]}
layers:
  - {name: stem, operators: [stem], width: 64}
  - {name: down1, operators: [down], width: 128}
  - {name: down2, operators: [down], width: 256}
  - {name: block, repeat: 9, operators: [block], width: 256}
  - {name: up1, operators: [up], width: 128}
  - {name: up2, operators: [up], width: 64}
  - {name: picture, operators: [picture], width: 3}
"""


def uniform(teacher: Teacher, budget: Budget, *, adding: bool = False) -> Generator:
    """A hand-made network, the widths of all layers multiplied by one factor that uses the budget.

    `adding`: one for translation adds its input to its output, as those do that are searched.
    """
    from benchmarks import baselines
    from compressor.coronet.targets import joint_cost
    from compressor.generators import Generator, GeneratorSpec
    from compressor.graph import trace

    if teacher.image.scale > 1 or adding:
        return narrowed(TRANSLATOR if adding else UPSCALER, budget)
    spec = GeneratorSpec("resnet", {"width": 64, "blocks": 9}, replace(teacher.image, multiple=4))
    wide = Generator(spec, spec.build(), Path("uniform"), "")
    graph = trace(wide.module, spec.image.input_shape)
    cost, target = joint_cost(graph, wide.module, budget)
    return baselines.cut(wide, graph, baselines.uniform(wide, graph, cost, target))


def narrowed(definition: str, budget: Budget) -> Generator:
    """The widest network within a budget, all widths of a definition multiplied by one factor, at most 4."""
    from compressor.agd.cost import cost_table
    from compressor.agd.definition import read_space
    from compressor.agd.reading import parse
    from compressor.agd.space import Choice
    from compressor.agd.supernet import spec_of
    from compressor.generators import Generator

    assert budget.amount is not None
    for share in range(4 * 256, 0, -1):
        widths = {width: max(3, round(width * share / 256)) for width in (64, 128, 256)} | {3: 3}
        scaled = re.sub(r"width: (\d+)", partial(_replaced, widths), definition)
        space = read_space(parse(scaled, "uniform"), "uniform")
        if cost_table(space, budget.metric).range()[1] <= budget.amount:
            spec = spec_of(space, Choice.widest(space))
            return Generator(spec, spec.build(), Path("uniform"), "")
    raise AssertionError("every width is at least 3")


def _replaced(widths: dict[int, int], found: re.Match[str]) -> str:
    return f"width: {widths[int(found[1])]}"
