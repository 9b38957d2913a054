"""The stages of a run, each a function that reads what earlier ones left in the run folder and adds its own.

prune:          original -> prune -> distill -> eval, export, bench, report
search:         original -> search -> distill -> eval, export, bench, report
search, prune:  original -> search -> train -> prune -> distill -> eval, export, bench, report
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.budget import Budget
from compressor.errors import GateError
from compressor.files import claim_folder, write_json
from pocketgan.recipe import Recipe

if TYPE_CHECKING:
    from compressor.agd.teachers import Teacher
    from compressor.generators import Generator

Stage = Callable[[Recipe, Path], None]


def stages_of(recipe: Recipe) -> dict[str, Stage]:
    """What a recipe needs, in order; each stage's folder in the run has its name."""
    made: dict[str, Stage] = {"original": _original}
    if recipe.search is not None:
        made["search"] = _search
    if recipe.search is not None and recipe.prunes:
        made["train"] = _train
    if recipe.prunes:
        made["prune"] = _prune
    rest = {"distill": _distill, "eval": _eval, "export": _export, "bench": _bench, "report": _report}
    return {**made, **rest}


def _original(recipe: Recipe, folder: Path) -> None:
    """A network in our own format; of what only teaches, where it comes from."""
    from compressor.generators import save

    source = recipe.generator
    images = _every_picture(recipe)  # a missing folder is better known now than after an hour
    if source.is_network:
        generator = source.load()
        provenance = {"source": source.named, "source_sha256": generator.sha256}
        save(generator.spec, generator.module, folder / "original", provenance)
        return
    claim_folder(folder / "original", resume=True)
    told = {"source": source.named, "teacher": source.teacher(images).identity}
    write_json(folder / "original" / "provenance.json", told)


def _search(recipe: Recipe, folder: Path) -> None:
    from compressor.agd.fitting import space_for
    from compressor.agd.search import search

    assert recipe.search is not None
    training, _ = recipe.data.split()
    teacher = ask(recipe, folder)
    budgets = [Budget.parse(next(iter(recipe.budgets().values())))]
    search(
        space_for(teacher.image, budgets, recipe.search.space_name),
        teacher,
        training,
        budgets,
        folder / "search",
        recipe.search.options,
        seed=recipe.seed,
        resume=True,
        log=folder / "metrics.jsonl",
    )
    if recipe.prunes:  # how far the found network can be pruned is better known before it is trained
        final = settled(Budget.parse(recipe.budget), _teaching(recipe, folder))
        reach(_model(recipe, folder, "search"), final)


def _train(recipe: Recipe, folder: Path) -> None:
    """The found generator at its full size: what pruning ranks channels by must know what it paints."""
    _learn(recipe, folder, "search", "train")


def _prune(recipe: Recipe, folder: Path) -> None:
    from compressor.coronet.prune import prune

    training, _ = recipe.data.split()
    budget = Budget.parse(recipe.budget)
    if recipe.search is not None:
        budget = settled(budget, _teaching(recipe, folder))
    prune(
        _model(recipe, folder, "original" if recipe.search is None else "train"),
        training,
        budget,
        folder / "prune",
        recipe.prune,
        seed=recipe.seed,
        resume=True,
        log=folder / "metrics.jsonl",
    )


def _distill(recipe: Recipe, folder: Path) -> None:
    _learn(recipe, folder, "prune" if recipe.prunes else "search", "distill")


def _learn(recipe: Recipe, folder: Path, before: str, stage: str) -> None:
    """Train what an earlier stage made against the original's pictures."""
    from compressor.training.distil import distil

    training, _ = recipe.data.split()
    distil(
        _model(recipe, folder, before),
        _teaching(recipe, folder),
        training,
        folder / stage,
        (recipe.train or recipe.distill) if stage == "train" else recipe.distill,
        seed=recipe.seed,
        resume=True,
        log=folder / "metrics.jsonl",
        stage=stage,
    )


def _eval(recipe: Recipe, folder: Path) -> None:
    from compressor.evaluate import evaluate

    _, held_out = recipe.data.split()
    teacher = _teaching(recipe, folder)
    evaluate(_model(recipe, folder, "distill"), held_out, folder / "eval", teacher=teacher, resume=True)


def _export(recipe: Recipe, folder: Path) -> None:
    """The compressed generator as asked; of the original the FP32 files, to compare speed and size with."""
    from exporters.export import export
    from exporters.given import take

    training, held_out = recipe.data.split()
    wanted, source = recipe.export, recipe.generator
    groups = [("compressed", "distill", wanted.precisions)]
    if source.is_network:
        groups.append(("original", "original", ("fp32",)))
    problems = []
    for group, stage, precisions in groups:
        try:
            export(
                _model(recipe, folder, stage),
                training,
                folder / "export" / group,
                formats=wanted.formats,
                precisions=precisions,
                size=wanted.size,
                calibration=wanted.calibration,
                parity_images=wanted.parity_images,
                min_psnr=wanted.min_psnr,
                dynamic=wanted.dynamic,
                opset=wanted.opset,
                integer_io=wanted.integer_io if group == "compressed" else None,
                max_drop=wanted.max_drop,
                reference=wanted.reference,
                images_held_out=held_out,
                resume=True,
            )
        except GateError as error:
            problems.append(error)
    if source.is_file and source.checkpoint is not None:
        image = ask(recipe, folder).image
        take(source.checkpoint, image, folder / "export" / "original", source.layout)
    if problems:
        raise problems[0]


def _bench(recipe: Recipe, folder: Path) -> None:
    from benchmarks.latency import bench

    wanted = recipe.bench
    groups = [folder / "export" / name for name in ("compressed", "original")]
    bench(
        [group for group in groups if group.is_dir()],  # of a folder of outputs there is nothing to time
        output=folder / "bench",
        threads=wanted.threads,
        rounds=wanted.rounds,
        warmup=wanted.warmup,
        max_seconds=wanted.max_seconds,
        seed=recipe.seed,
        resume=True,
    )


def _report(recipe: Recipe, folder: Path) -> None:
    from benchmarks.report.page import report

    report(folder)


def ask(recipe: Recipe, folder: Path | None = None) -> Teacher:
    """The original as what only answers with pictures.

    Args:
        recipe: names it.
        folder: the run folder, where it has been read already.
    """
    from compressor.agd.teachers import NetworkTeacher
    from compressor.training.loop import choose_device

    device = choose_device(recipe.search.device if recipe.search else recipe.distill.device)
    if folder is not None and recipe.generator.is_network:
        return NetworkTeacher(_model(recipe, folder, "original"), device)
    return recipe.generator.teacher(_every_picture(recipe), device)


def reach(generator: Generator, budget: Budget) -> None:
    """Refuse a budget that pruning this generator cannot reach, or that it meets already.

    Raises:
        UsageError: the least that can be reached is said.
    """
    from compressor.coronet.targets import joint_cost
    from compressor.graph import trace

    graph = trace(generator.module, generator.spec.image.input_shape)
    joint_cost(graph, generator.module, budget)


def settled(budget: Budget, teacher: Generator | Teacher) -> Budget:
    """A budget whose shares are the original's, in amounts.

    Raises:
        UsageError: it has shares, and the original's cost is unknown.
    """
    from compressor.agd.limits import refuse_share
    from compressor.coronet.memory import peak_memory
    from compressor.cost import count
    from compressor.generators import Generator

    if all(part.amount is not None for part in budget.parts()):
        return budget
    if not isinstance(teacher, Generator):
        raise refuse_share(budget)
    shape = teacher.spec.image.input_shape
    cost = count(teacher.module, shape)
    costs = {name: int(getattr(cost, name)) for name in ("macs", "parameters", "bytes")}
    return budget.settled({**costs, "memory": peak_memory(teacher.module, shape)})


def _teaching(recipe: Recipe, folder: Path) -> Generator | Teacher:
    """The original: a network is run on every batch, others are run once for each picture."""
    if recipe.generator.is_network:
        return _model(recipe, folder, "original")
    return ask(recipe, folder)


def _model(recipe: Recipe, folder: Path, stage: str) -> Generator:
    """What a stage left; a searched generator is ours, whatever code built the original."""
    from compressor.generators import load

    ours = recipe.search is not None and stage != "original"
    return load(folder / stage, factory=None if ours else recipe.generator.factory)


def _every_picture(recipe: Recipe) -> list[Path]:
    training, held_out = recipe.data.split()
    return list(dict.fromkeys([*training, *held_out]))
