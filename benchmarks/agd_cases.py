"""What AGD is tried on: the cases of `benchmarks.agd_quality`, and the networks that are trained in each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.agd.space import SearchSpace
    from compressor.agd.teachers import Teacher
    from compressor.budget import Budget
    from compressor.generators import Generator

METHODS = ("search", "uniform", "random")
HORSES, ZEBRAS = "horse2zebra/testA_real", "horse2zebra/fake_horse2zebra_pretrained"
T91 = "sr/train_T91"


@dataclass(frozen=True)
class Case:
    """What is searched, and how all are trained.

    Attributes:
        teacher: a checkpoint, or with `outputs` nothing.
        pretrain, search, steps: of the supernet alone, of the search, of every network's own training.
        crop, batch: of the training pictures.
    """

    budget: str
    images: str
    teacher: str | None = None
    factory: str | None = None
    outputs: str | None = None
    pretrain: int = 300
    search: int = 300
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
    "sr-11G": Case("macs=11G", **IMDN, crop=24, batch=4, steps=3000),
    "sr-110.9G": Case("macs=110.9G", **IMDN, crop=24, batch=4),
}


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
    if method == "uniform":
        return uniform(teacher, budget)
    if method == "random":
        return random_network(space, budget, seed)
    options = SearchOptions(
        pretrain=case.pretrain,
        steps=case.search,
        batch=case.batch,
        crop=case.crop,
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


def uniform(teacher: Teacher, budget: Budget) -> Generator:
    """A hand-made network with all layers narrowed by one factor until the budget is used."""
    from benchmarks import baselines
    from compressor.agd.definition import read_space
    from compressor.agd.reading import parse
    from compressor.agd.space import Choice
    from compressor.agd.supernet import spec_of
    from compressor.coronet.targets import joint_cost
    from compressor.generators import Generator, GeneratorSpec
    from compressor.graph import trace

    if teacher.image.scale == 1:
        spec = GeneratorSpec("resnet", {"width": 64, "blocks": 9}, replace(teacher.image, multiple=4))
    else:
        space = read_space(parse(UPSCALER, "uniform"), "uniform")
        spec = spec_of(space, Choice.widest(space))
    wide = Generator(spec, spec.build(), Path("uniform"), "")
    graph = trace(wide.module, spec.image.input_shape)
    cost, target = joint_cost(graph, wide.module, budget)
    return baselines.cut(wide, graph, baselines.uniform(wide, graph, cost, target))
