"""The search: a supernet learns a teacher's pictures while its architecture comes to a budget.

After AutoGAN-Distiller (Fu et al., ICML 2020, arXiv 2006.08198). First the shared weights are trained alone,
on the widest, the narrowest and random networks of the space (the sandwich rule). Then every step moves each
budget's architecture (first-order, on one half of the pictures) and the weights (on the other half, for
networks drawn from the architectures and one at either end of the space). The budget is controlled at every
step and landed on exactly; of all landings the best are trained on their own for a while, and the one is kept
that comes nearest to the teacher on held-out pictures (`compressor.agd.trials`). Unlike the published search
see `compressor.agd.controller`, `compressor.agd.landing` and `compressor.agd.architecture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.agd.course import Course
from compressor.agd.landing import WINDOW
from compressor.agd.latency import OperatorMeter
from compressor.agd.limits import check_metrics, limits_of, name_of, times_for
from compressor.agd.member import Member, choice_of
from compressor.agd.options import SearchOptions
from compressor.agd.outcome import RECORD, describe, write_family
from compressor.agd.space import Choice, SearchSpace
from compressor.agd.supernet import derive
from compressor.agd.teachers import NetworkTeacher, Teacher
from compressor.agd.timed import Times
from compressor.agd.timed_landing import land_timed
from compressor.agd.training import FINALISTS, Search
from compressor.agd.trials import settle
from compressor.budget import Budget
from compressor.coronet.latency import Measured
from compressor.cost import count
from compressor.errors import UsageError
from compressor.files import claim_folder, read_json, write_json
from compressor.generators import Generator, load, save
from compressor.launch import leads, world
from compressor.options import deciding
from compressor.training import ranks, watch
from compressor.training.loop import Loop, choose_device

TIMES = "latency_times.json"  # what a search for a latency began with; gone once it is done


@dataclass(frozen=True)
class SearchResult:
    """What a search gave for one budget.

    Attributes:
        generator: the found network with the weights of its trial, or without trials the supernet's; read
            back from `folder`.
        folder: its model folder, which also holds search.json.
        document: search.json: budget asked and reached, the choice at every position, candidates, trajectory.
    """

    generator: Generator
    folder: Path
    document: dict[str, Any]


def search(
    space: SearchSpace,
    teacher: Teacher,
    images: Sequence[Path],
    budgets: Sequence[Budget],
    output: Path,
    options: SearchOptions = SearchOptions(),  # noqa: B008  frozen
    *,
    meter: OperatorMeter | None = None,
    seed: int = 0,
    resume: bool = False,
    log: Path | None = None,
) -> list[SearchResult]:
    """Search a space for the network of each budget that comes nearest to a teacher.

    Args:
        space: what may be chosen; its `image` says at what size costs count.
        teacher: whose pictures are learnt.
        images: pictures to learn on: inputs.
        budgets: what each network may cost; one, or several, which share one supernet.
        output: new folder: of the model and search.json, or with several budgets of one folder for each
            ("macs-1G") and pareto.json.
        options: how to search.
        meter: what budgets of latency are measured with.
        seed: of weights, pictures and draws.
        resume: go on in `output` where an earlier call was stopped.
        log: JSON-lines file for figures of the search.

    Returns:
        One result for each budget, in their order.

    Raises:
        UsageError: a budget lies outside what the space can cost, the batch cannot be divided among the
            processes, or several processes are to search for a latency; known before anything is written.
        PocketganError: pictures cannot be read, or `output` is taken.
    """
    options = options.effective
    watch.check(options)
    ranks.check_batch("search", options.batch, options.accumulate)
    for budget in budgets:
        check_metrics(budget)
    folders = [output / name_of(budget) if len(budgets) > 1 else output for budget in budgets]
    device = ranks.join(choose_device(options.device))
    if resume and ranks.on_leader(lambda: all((folder / RECORD).exists() for folder in folders)):
        return [_read(folder) for folder in folders]
    times = _times(space, budgets, teacher, meter, output / TIMES, seed, resume)
    limits = limits_of(space, budgets, teacher, times)
    run = Search(space, teacher, images, limits, options, seed, device)
    ranks.on_leader(lambda: claim_folder(output, resume=resume))
    if times is not None:
        write_json(output / TIMES, times.as_json())
    identity = {
        "space": space.definition,
        "size": space.image.size,
        "teacher": teacher.identity,
        "budgets": [f"{limit.metric}={limit.target}" for limit in limits],
        "seed": seed,
        **deciding(options),
    }
    identity |= {"meter": dict(times.device)} if times else {}
    steps = options.pretrain + options.steps
    names = [limit.name if len(limits) > 1 else "" for limit in limits]
    courses = {name: Course(space, member) for name, member in zip(names, run.members, strict=True)}
    seen = watch.Watch("search", steps, dict(zip(names, folders, strict=True)), options, run.samples, courses)
    parts = {**run.parts(), "watch": seen}
    loop = Loop("search", steps, output / "checkpoint.pt", parts, identity, log)
    loop.resume()
    for step in loop:
        figures = run.step(step)
        loop.report(**figures)
        seen.look(step + 1, figures, last=step + 1 == steps)
    seen.close()
    settings = {
        key: str(value) if isinstance(value, Path) else value for key, value in deciding(options).items()
    }
    told = {"teacher": teacher.identity, "teacher_cost": _cost_of(teacher), "seed": seed, "options": settings}
    found = []
    for name, member, folder in zip(names, run.members, folders, strict=True):
        best, report, generator = member.decide(run.measure, steps, [seed, FINALISTS]), None, None
        contenders = member.contenders(options.trials, run.measure, steps, [seed, FINALISTS])
        if len(contenders) > 1:
            best, generator = settle(run, member, contenders, _trials(output, name), loop.identity, log)
        tried = choice_of(best)
        if times is not None and meter is not None and member.limit.latency is not None:
            best, report = _timed(run, member, best, times, meter, steps)
        if generator is None or choice_of(best) != tried:
            generator = derive(run.supernet, choice_of(best))
        watched = seen.document(name)
        document = describe(space, member, best, generator, loop.trajectory, report, **told, **watched)
        found.append(SearchResult(generator, folder, document))

    def write() -> None:
        for result in found:
            provenance = {"made_by": "search", "teacher": teacher.identity, "seed": seed}
            save(result.generator.spec, result.generator.module, result.folder, provenance)
            write_json(result.folder / RECORD, result.document)
        if len(found) > 1:
            write_family(output, [(result.folder, result.document) for result in found])

    ranks.on_leader(write)
    ranks.on_leader(lambda: _clear(output, names))
    loop.finish()
    return [_read(result.folder) for result in found] if leads() else found


def _trials(output: Path, name: str) -> Path:
    """The checkpoint of a budget's trials."""
    return output / f"trials{f'-{name}' if name else ''}.pt"


def _clear(output: Path, names: Sequence[str]) -> None:
    """Remove what only a search that was stopped needs."""
    for path in (output / TIMES, *(_trials(output, name) for name in names)):
        path.unlink(missing_ok=True)


def _times(
    space: SearchSpace,
    budgets: Sequence[Budget],
    teacher: Teacher,
    meter: OperatorMeter | None,
    file: Path,
    seed: int,
    resume: bool,
) -> Times | None:
    """What the space takes on the device: as an earlier call of this search found it, or measured now."""
    if meter is not None and world() > 1:
        raise UsageError(
            "a budget of latency is for one process: what several measure differs", got=f"{world()} processes"
        )
    if not (resume and meter is not None and file.exists()):
        return times_for(space, budgets, teacher, meter, seed)
    times = Times.from_json(read_json(file), space, file)
    if times.device != meter.identity:
        raise UsageError(
            f"{file} holds times of another device or runtime",
            got=dict(meter.identity),
            allowed=dict(times.device),
            fix="resume with the same --latency options on the same machine, or choose another --output-dir",
        )
    return times


def _timed(
    run: Search, member: Member, best: dict[str, Any], times: Times, meter: OperatorMeter, steps: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The candidate to take once it is measured, and what was measured."""
    limit, target = member.limit, member.limit.latency
    assert target is not None

    def measure(choice: Choice) -> Measured:
        small = derive(run.supernet, choice)
        if limit.whole is None:
            return meter.alone(small)
        assert isinstance(run.teacher, NetworkTeacher)
        return meter.compare(run.teacher.generator, small)

    place = [limit.metric, *limit.also].index("latency")
    logs = member.architecture.log_probabilities()
    choice, found = land_timed(times, limit.cost, place, choice_of(best), logs, measure, target, limit.whole)
    near = found["measured"] <= target and found["high"] >= WINDOW * target
    taken = {
        **{"step": steps, "operators": list(choice.operators), "widths": list(choice.widths)},
        **{"cost": limit.cost.tables[0].cost(choice), "loss": run.measure(choice)},
        "within": found["met"] and (near or limit.cost.used(choice, place)),
    }
    if choice != choice_of(best):
        member.candidates.append(taken)
    else:
        taken["step"] = best["step"]
    report = {
        "device": dict(times.device),
        "unit": "nanoseconds",
        "target": target,
        **({"original": limit.whole} if limit.whole is not None else {}),
        **found,
        "table": times.told(),
    }
    return taken, report


def _cost_of(teacher: Teacher) -> dict[str, int] | None:
    """What the teacher costs at its usual size, where it is a network that can be counted."""
    if not isinstance(teacher, NetworkTeacher):
        return None
    cost = count(teacher.module, teacher.image.input_shape)
    return {name: getattr(cost, name) for name in ("macs", "literature_macs", "parameters", "bytes")}


def _read(folder: Path) -> SearchResult:
    return SearchResult(load(folder), folder, read_json(folder / RECORD))
