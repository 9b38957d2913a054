"""Distillation: training a small generator to paint what the original paints."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from compressor.agd.teachers import NetworkTeacher, TaughtPictures, Teacher
from compressor.errors import PocketganError
from compressor.files import claim_folder, read_json, write_json
from compressor.generators import Generator, load, save
from compressor.launch import leads
from compressor.options import DistilOptions, deciding
from compressor.quantisation.training import quantisation_aware
from compressor.training import ranks, watch
from compressor.training.engine import Engine, Forward
from compressor.training.lessons import Lessons
from compressor.training.loop import Loop, choose_device, train_mode
from compressor.training.norms import share_statistics
from compressor.training.schedules import Average, Schedule

_PATCH_SEED = 1_000_003  # keeps distillation's pictures apart from pruning's at the same seed


@dataclass(frozen=True)
class DistilResult:
    """What distillation gave.

    Attributes:
        generator: the trained student, read back from `folder`.
        folder: its model folder, which also holds distill.json.
        document: distill.json: steps, seed, loss over time.
    """

    generator: Generator
    folder: Path
    document: dict[str, Any]


def distil(
    student: Generator,
    teacher: Generator | Teacher,
    images: Sequence[Path],
    output: Path,
    options: DistilOptions = DistilOptions(),  # noqa: B008  frozen
    *,
    seed: int = 0,
    resume: bool = False,
    log: Path | None = None,
    stage: str = "distill",
) -> DistilResult:
    """Train a student against a teacher's outputs, and towards true pictures where `options.truth` says so.

    Args:
        student: the small generator; its weights are the start.
        teacher: the original; it must take the same pictures and give the same size. A generator is run on
            every batch, unless `options.cached`; other teachers are run once for each picture, see
            `compressor.agd.teachers.TaughtPictures`.
        images: pictures to train on: inputs, or with `options.truth` the true, large pictures.
        output: new folder for the trained model and distill.json.
        options: how to train; with `options.qat` the result carries the ranges that INT8 files will use.
        seed: of the pictures drawn.
        resume: go on in `output` where an earlier call was stopped.
        log: JSON-lines file for figures of the training.
        stage: what the log and TensorBoard call it, where a run trains more than once.

    Raises:
        UsageError: the batch cannot be divided among the processes.
        PocketganError: the two do not fit each other, pictures cannot be read, or `output` is taken.
    """
    live = isinstance(teacher, Generator) and not options.cached
    ours = student.spec.image
    theirs = teacher.spec.image if isinstance(teacher, Generator) else teacher.image
    for name in ("input_range", "output_range", "scale", "channels") if live else ("scale", "channels"):
        if getattr(ours, name) != getattr(theirs, name):
            raise PocketganError(
                f"student and teacher differ in their {name.replace('_', ' ')}",
                got=getattr(ours, name),
                allowed=getattr(theirs, name),
            )
    factory = student.spec.arguments.get("factory") if student.spec.family == "custom" else None
    record = output / "distill.json"
    watch.check(options)
    ranks.check_batch("distill", options.batch, options.accumulate)
    device = ranks.join(choose_device(options.device))
    if resume and ranks.on_leader(record.exists):
        return DistilResult(load(output, factory=factory), output, read_json(record))
    ranks.on_leader(lambda: claim_folder(output, resume=resume))

    engine = Engine(options, device)
    original: Forward | Teacher
    if not isinstance(teacher, Generator):
        original, taught_by = teacher, teacher.identity
    elif options.cached:
        original, taught_by = NetworkTeacher(teacher, device), teacher.sha256
    else:
        guide = copy.deepcopy(teacher.module).to(device).eval().requires_grad_(False)
        original, taught_by = engine.forward(engine.arrange(guide)), teacher.sha256
    lessons = Lessons(images, ours, options, engine, original, seed + _PATCH_SEED, truth=options.truth)
    network = copy.deepcopy(student.module).to(device).requires_grad_(True)
    quantised = quantisation_aware(student, network, lessons, device) if options.qat else None
    module = train_mode(share_statistics(network)) if quantised is None else quantised.network
    paint = engine.forward(engine.arrange(module))
    schedule = Schedule(options.schedule, options.steps, options.learning_rate)
    optimiser = schedule.optimiser(module.parameters())
    average = Average(module, options.ema) if options.ema else None

    identity = {"student": student.sha256, "teacher": taught_by, "seed": seed, **deciding(options)}
    shown = lessons(0)[:1].to(device)

    def show() -> torch.Tensor:
        if isinstance(lessons.patches, TaughtPictures):
            return lessons.patches.pair(0)[1][:1]
        assert isinstance(original, Forward)
        return original(shown)

    def samples() -> dict[str, tuple[watch.Panels, tuple[float, float]]]:
        with watch.at_rest(module):
            return {"": ({"original": show(), "student": paint(shown)}, ours.output_range)}

    seen = watch.Watch(stage, options.steps, {"": output}, options, samples)
    parts = {"student": module, "optimiser": optimiser, "watch": seen}
    if average is not None:
        parts["average"] = average
    loop = Loop(stage, options.steps, output / "checkpoint.pt", parts, identity, log)
    loop.resume()
    for step in loop:
        optimiser.zero_grad(set_to_none=True)
        total = lessons.backward(step, lambda: paint)
        ranks.average(optimiser)
        schedule.set(optimiser, step)
        optimiser.step()
        if average is not None:
            average.update(module)
        figures = ranks.mean({"loss": total}, device)
        loop.report(**figures)
        seen.look(step + 1, figures)
    seen.close()
    if average is not None:
        module.load_state_dict(average.values)

    document = {
        "steps": options.steps,
        "seed": seed,
        "loss_first": loop.trajectory[0]["loss"],
        "loss_last": loop.trajectory[-1]["loss"],
        "trajectory": loop.trajectory,
        "schedule": schedule.name,
        "learning_rate": schedule.peak,
        "notes": [*lessons.distance.notes, *getattr(teacher, "notes", ())],
        **seen.document(),
    }
    ranges = None
    if quantised is not None:
        document["quantisation"] = quantised.document()
        ranges = quantised.network.learned()
        module = quantised.network.release()
    provenance = {"made_by": "distill", "student_sha256": student.sha256, "teacher_sha256": taught_by}
    module.cpu().eval()

    def write() -> None:
        save(student.spec, module, output, {**provenance, **document}, ranges)
        write_json(record, document)

    ranks.on_leader(write)
    loop.finish()
    made = load(output, factory=factory) if leads() else replace(student, module=module, ranges=ranges)
    return DistilResult(made, output, document)
