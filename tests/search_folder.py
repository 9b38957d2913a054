"""What `pocketgan search` leaves, made up: for tests of the report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from run_folder import write_samples

from compressor.files import write_json

OPERATORS = ("skip", "conv3x3", "residual", "dwsblock", "identity")


def write_search(
    folder: Path,
    *,
    positions: int = 25,
    name: str = "cell{}",
    scale: int = 1,
    macs: int = 998_000_000,
    target: int = 1_000_000_000,
    teacher: bool = True,
    loss: float = 0.05,
    seed: int = 0,
) -> dict[str, Any]:
    """search.json of a search with operators that are decided one after another; the document."""
    chance = np.random.default_rng(seed)
    steps = list(range(420, 801, 20))
    places, course = [], []
    for index in range(positions):
        taken, sharpness = (
            int(chance.integers(len(OPERATORS))),
            np.linspace(0, chance.uniform(1, 6), len(steps)),
        )
        logits = sharpness[:, None] * (np.arange(len(OPERATORS)) == taken)
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        channels = int(chance.choice([24, 32, 40, 56, 64]))
        own = {"name": name.format(index), "operators": list(OPERATORS)}
        course.append(
            {**own, "chances": chances.round(4).tolist(), "widest": 64, "channels": [44.0] * len(steps)}
        )
        last = dict(zip(OPERATORS, chances[-1].tolist(), strict=True))
        places.append({"name": own["name"], "operator": OPERATORS[taken], "operators": last})
        places[-1] |= {"channels": channels, "widths": {"24": 0.5, "64": 0.5}, "tied": None}
    trajectory: list[dict[str, float]] = [
        {"step": s, "loss": 0.3 * math.exp(-s / 150) + 0.08} for s in range(4, 401, 4)
    ]
    for step in range(404, 801, 4):
        now = (step - 400) / 400
        point = {
            "step": step,
            "loss": 0.08 - 0.02 * now,
            "share": 1.02 - 0.03 * now,
            "multiplier": math.sin(9 * now),
        }
        trajectory.append({**point, "entropy": 1 - 0.8 * now, "temperature": 3 * 0.1**now})
    cost = {
        "macs": 56_800_000_000,
        "literature_macs": 56_800_000_000,
        "parameters": 11_378_000,
        "bytes": 45_512_000,
    }
    document: dict[str, Any] = {
        "format": "pocketgan.search/1",
        "space": "sr_tail" if scale == 4 else "st",
        "budget": {"asked": f"macs={target / 1e9:g}G", "metric": "macs", "target": target},
        "reached": {"macs": macs, "literature_macs": macs, "parameters": 1_019_088, "bytes": 4_076_352},
        "share": macs / target,
        "within": True,
        "size": [128, 128] if scale == 4 else [256, 256],
        "scale": scale,
        "positions": places,
        "candidates": [{}] * 9,
        "validation_loss": loss,
        "teacher_cost": cost if teacher else None,
        "course": {"steps": steps, "positions": course},
        **write_samples(folder),
        "trajectory": trajectory,
    }
    write_json(folder / "search.json", document)
    return document


def write_pareto(folder: Path, *, scale: int = 1, count: int = 5) -> None:
    """pareto.json and its members, each half as dear as the one before and further from the teacher."""
    members = []
    for index in range(count):
        target = 4_000_000_000 // 2**index
        name = f"macs-{target / 1e9:g}G"
        loss = 0.03 * 1.3**index
        told = write_search(folder / name, scale=scale, target=target, macs=int(0.99 * target), loss=loss)
        kept = ("budget", "reached", "share", "within", "validation_loss")
        members.append({"folder": name, **{key: told[key] for key in kept}})
    write_json(folder / "pareto.json", {"format": "pocketgan.pareto/1", "members": members})
