"""`pocketgan prune`: make a generator fit a budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.errors import UsageError
from pocketgan import options
from pocketgan.latency_options import MeterFor, latency_options, missed
from pocketgan.options import Answer, command, generator_options
from pocketgan.task_options import task_settings
from pocketgan.texts import amount, table

if TYPE_CHECKING:
    from compressor.generators import Generator
    from pocketgan.recipe import GeneratorSource


@command("prune")
@click.argument("checkpoint", type=options.FILE)
@options.images
@click.option(
    "--budget",
    required=True,
    help="What the result may cost: macs=50%, macs=2.5G, params=350k, bytes=1.8MB, memory=8MB, latency=12ms. "
    "Several metrics (macs=50%,params=40%) all hold; several sizes of one (macs=75%,50%,25%) give a network "
    "each, a family.",
)
@options.new_output
@task_settings
@click.option(
    "--partner-images",
    type=options.FOLDER,
    metavar="DIR",
    help="For cyclegan: pictures of B. For pix2pix: what is wanted, by the same names; without it --images "
    "holds pairs: A and B below it, NAME_real_A and NAME_real_B, or both side by side in one picture.",
)
@click.option(
    "--partner",
    type=options.FILE,
    metavar="CHECKPOINT",
    help="For cyclegan: the generator of the way back; with --scratch it may be left out.",
)
@click.option("--partner-budget", help="For cyclegan: what the way back may cost, if not the same.")
@click.option(
    "--direction",
    type=click.Choice(["AtoB", "BtoA"]),
    default="AtoB",
    show_default=True,
    help="For pix2pix: which picture of a pair is given and which is wanted.",
)
@latency_options
@options.seed
@options.resume
@generator_options
def prune_command(
    checkpoint: Path,
    images: Path,
    budget: str,
    output: Path,
    task: str,
    settings: Any,
    partner_images: Path | None,
    partner: Path | None,
    partner_budget: str | None,
    direction: str,
    seed: int,
    resume: bool,
    meter_for: MeterFor,
    source: Callable[[Path], GeneratorSource],
) -> Answer:
    """Prune the generator in CHECKPOINT to a budget with CoroNet while it is trained.

    OUT becomes a model folder that the other commands read, with prune.json: what was asked and reached,
    and the width of every layer before and after. --task cyclegan makes two: OUT/A_to_B and OUT/B_to_A.
    A family makes OUT/macs-75, OUT/macs-50, ..., each going on from the one before, and OUT/family.json.
    With --scratch, CHECKPOINT may also be the name of a family (unet, resnet), its --argument and --size.
    """
    from compressor.budget import Budget
    from compressor.data.images import list_images

    budgets = Budget.parse_family(budget)
    scratch = getattr(settings, "scratch", False)
    if len(budgets) > 1 and (scratch or partner_budget):
        raise UsageError(
            "a family of networks starts from a trained generator and has one list of budgets",
            got="--scratch" if scratch else "--partner-budget",
            fix="train the first without a family, then give its checkpoint here",
        )
    generators = [_generator(source(checkpoint), scratch, seed)]
    limits = [*budgets, *([Budget.parse(partner_budget)] if partner_budget else [])]
    meter = meter_for(limits, list_images(images))
    told: dict[str, Any] = {"seed": seed, "meter": meter}
    prune_one: Any
    if task == "pix2pix":
        from compressor.coronet.pix2pix import prune_pix2pix
        from compressor.data.pairs import find_pairs

        pairs = find_pairs(images, partner_images)

        def prune_one(limit: Budget, folder: Path, earlier: Any, resume: bool = True) -> list[Any]:
            (start,), (teacher,) = earlier or generators, generators if earlier else [None]
            more = {**told, "direction": direction, "teacher": teacher, "resume": resume}
            return [prune_pix2pix(start, pairs, limit, folder, settings, **more)]

    elif task == "cyclegan":
        from compressor.coronet.cyclegan import prune_cyclegan

        if partner_images is None:
            raise UsageError("CycleGAN needs a second set of pictures", fix="--partner-images DIR")
        if partner is None and not scratch:
            raise UsageError("CycleGAN needs the generator of the way back", fix="--partner CHECKPOINT")
        generators.append(_generator(source(partner or checkpoint), scratch, seed + 1))
        told["budget_back"] = Budget.parse(partner_budget) if partner_budget else None
        sets = list_images(images), list_images(partner_images)

        def prune_one(limit: Budget, folder: Path, earlier: Any, resume: bool = True) -> list[Any]:
            more = {**told, "teachers": tuple(generators) if earlier else None, "resume": resume}
            forth, back = earlier or generators
            both = prune_cyclegan(forth, back, *sets, limit, folder, settings, **more)
            return [both.forth, both.back]

    else:
        from compressor.coronet.prune import prune

        pictures = list_images(images)

        def prune_one(limit: Budget, folder: Path, earlier: Any, resume: bool = True) -> list[Any]:
            (start,), (teacher,) = earlier or generators, generators if earlier else [None]
            return [prune(start, pictures, limit, folder, settings, teacher=teacher, resume=resume, **told)]

    if len(budgets) == 1:
        results = prune_one(budgets[0], output, None, resume)
    else:
        from compressor.coronet.family import prune_family

        members = prune_family(generators, budgets, output, prune_one, meter=meter, resume=resume)
        results = [result for member in members for result in member]
    documents = [{"folder": str(result.folder), **result.document} for result in results]
    if len(budgets) > 1:
        found = {"family": documents, "record": str(output / "family.json")}
        return Answer(_family_text(documents), found, missed(documents))
    text = "\n\n".join(_text(result.document, result.folder) for result in results)
    answer = documents[0] if len(documents) == 1 else {"generators": documents}
    return Answer(text, answer, missed(documents))


def _family_text(documents: list[dict[str, Any]]) -> str:
    """One line for each member."""
    rows = [
        (
            document["budget"]["asked"],
            f"{document['share']:.2%}",
            amount(document["reached"]["macs"]),
            amount(document["reached"]["parameters"], "parameters"),
            document["folder"],
        )
        for document in documents
    ]
    return (
        f"{table(rows, head=('budget', 'reached', 'true MACs', 'parameters', 'folder'))}\n\n"
        "next, for each: pocketgan distill FOLDER --teacher CHECKPOINT --images DIR --output-dir OUT"
    )


def _generator(source: GeneratorSource, scratch: bool, seed: int) -> Generator:
    """The generator of a checkpoint, or a fresh one of a family that was named."""
    if scratch and not source.checkpoint.exists():
        from compressor.adversarial.fresh import fresh

        return fresh(str(source.checkpoint), source.arguments, seed=seed, size=source.size)
    return source.load()


def _text(document: dict[str, Any], output: Path) -> str:
    before, after = document["original"], document["reached"]
    rows = [
        (name, amount(before[key], key), amount(after[key], key), f"{after[key] / before[key]:.1%}")
        for name, key in (
            ("true MACs", "macs"),
            ("literature MACs", "literature_macs"),
            ("parameters", "parameters"),
            ("weights", "bytes"),
            ("peak activations", "memory"),
            ("latency", "latency"),
        )
        if key in before
    ]
    asked = document["budget"]
    return (
        f"{asked['asked']} reached: {document['share']:.2%} of the original's {asked['metric']}\n\n"
        f"{table(rows, head=('', 'original', 'pruned', 'share'))}\n\n"
        f"{output}\n  next: pocketgan distill {output} --teacher CHECKPOINT --images DIR --output-dir OUT"
    )
