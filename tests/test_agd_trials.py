"""Trials: the right one wins, a stopped one goes on to the same result, and fresh weights can be trained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_agd_search import QUICK, _own_cache, _search
from tiny_space import TIED, space

from compressor.agd import trials
from compressor.agd.definition import read_space
from compressor.agd.fitting import fitted
from compressor.agd.landing import WINDOW
from compressor.agd.limits import limits_of
from compressor.agd.member import Member, choice_of
from compressor.agd.options import SearchOptions
from compressor.agd.space import Choice, load_space
from compressor.agd.supernet import Supernet, spec_of
from compressor.agd.trials import Trials, rounds_of
from compressor.budget import Budget
from compressor.errors import UsageError
from compressor.generators.spec import ImageFormat

__all__ = ["_own_cache"]
TRYING = SearchOptions(**{**vars(QUICK), "trials": 4, "trial_steps": 2})


@pytest.mark.parametrize(
    ("contenders", "rounds"),
    [(0, []), (1, []), (2, [(2, 5)]), (5, [(5, 5), (3, 10), (2, 20)]), (8, [(8, 5), (4, 10), (2, 20)])],
)
def test_rounds_halve_until_there_is_a_winner(contenders: int, rounds: list[tuple[int, int]]) -> None:
    assert rounds_of(contenders, 5) == rounds


def test_the_winner_is_the_best_of_the_last_round_and_carries_its_weights(tmp_path: Path) -> None:
    found = _search(space(TIED), tmp_path, "macs=90k", TRYING)
    tried = [candidate for candidate in found.document["candidates"] if "trial" in candidate]
    assert sorted(len(candidate["trial"]) for candidate in tried) == [
        1,
        2,
        2,
    ]  # no more networks are to be had
    winner = min(tried, key=lambda candidate: (-len(candidate["trial"]), candidate["trial"][-1]))
    assert found.document["choice"] == {key: winner[key] for key in ("operators", "widths")}
    assert found.document["validation_loss"] == winner["trial"][-1] and found.document["within"]
    alone = _search(
        space(TIED), tmp_path, "macs=90k", QUICK, output=tmp_path / "alone", log=tmp_path / "log.jsonl"
    )
    assert alone.generator.sha256 != found.generator.sha256
    assert not any("trial" in candidate for candidate in alone.document["candidates"])


@pytest.mark.parametrize("at", [1, 4, 11])
def test_trials_killed_at_any_moment_end_in_the_same_network(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.jsonl"
    whole = _search(space(TIED), tmp_path, "macs=90k", TRYING, log=log)
    monkeypatch.setattr("compressor.training.loop._SAVE_EVERY", 0.0)
    step = Trials.step

    class Killed(BaseException):
        pass

    def stop(run: Any, number: int) -> dict[str, float]:
        if number == at:
            raise Killed
        return step(run, number)

    monkeypatch.setattr(Trials, "step", stop)
    with pytest.raises(Killed):
        _search(space(TIED), tmp_path, "macs=90k", TRYING, output=tmp_path / "again", resume=True)
    assert (tmp_path / "again" / "trials.pt").exists()
    monkeypatch.setattr(Trials, "step", step)
    again = _search(space(TIED), tmp_path, "macs=90k", TRYING, output=tmp_path / "again", resume=True)
    assert again.document == whole.document and again.generator.sha256 == whole.generator.sha256
    assert not list((tmp_path / "again").glob("*.pt"))
    stages = [json.loads(line)["stage"] for line in log.read_text().splitlines()]
    assert stages == ["search"] * 5 + ["trials"] * 14


def test_what_is_tried_goes_through_all_widths_of_a_trunk() -> None:
    """Of all networks of a budget nearly all are as narrow as can be."""
    of = load_space("sr_tail")
    (limit,) = limits_of(of, [Budget.parse("macs=11G")])
    member = Member(limit, of, SearchOptions(finalists=2, descendants=0))
    member.decide(lambda choice: 1.0, 1, [0])
    found = member.contenders(12, lambda choice: 1.0, 1, [0])
    widths = [of.widths(choice_of(contender))[0] for contender in found]
    assert len(found) == 12 and set(widths) == {16, 24, 32, 40, 48, 64}
    assert all(WINDOW * 11e9 < contender["cost"] <= 11e9 for contender in found)


def test_a_network_that_diverges_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = trials.Trials._judge
    broken: list[int] = []

    def judged(run: Trials) -> float:
        if not broken or run._who == broken[0]:
            broken.append(int(run._who or 0))
            return math.inf
        return judge(run)

    monkeypatch.setattr(trials.Trials, "_judge", judged)
    found = _search(space(TIED), tmp_path, "macs=90k", TRYING)
    lost = [c for c in found.document["candidates"] if c.get("trial") == [None]]
    assert len(lost) == 1
    assert found.document["choice"] != {key: lost[0][key] for key in ("operators", "widths")}


def test_fresh_networks_without_norms_keep_their_signal() -> None:
    """However deep; and they begin near the enlarged picture. PyTorch's own weights lose it in ten layers."""
    of = load_space("sr_tail")
    names = ["plain", *["edsr"] * 24, "plain", "refine", "refine", "shuffle4"]
    torch.manual_seed(0)
    network = spec_of(of, of.choice(names, [24] * 28 + [3])).build()
    seen: list[float] = []
    for name in ("cell1", "cell24", "neck2"):
        network.layers[name].register_forward_hook(  # type: ignore[index,union-attr,operator]
            lambda _, given, made: seen.append(float(made.std()))
        )
    torch.manual_seed(0)
    x = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        made = network(x)
    base = torch.nn.functional.interpolate(x, scale_factor=4.0, mode="bilinear", align_corners=False)
    assert seen[1] > 0.5 * seen[0] and seen[2] > 0.2 * seen[0]
    assert float((made - base).abs().mean()) < 0.3
    every = Supernet(of, 0).layers["cell1"]["edsr"].body  # type: ignore[index,union-attr]
    assert every[2].weight.detach().std() < 0.1 * every[0].weight.detach().std()  # type: ignore[index,union-attr]


def test_an_input_is_added_to_the_output_where_it_can_be() -> None:
    of = load_space("st_small")
    network = spec_of(of, Choice.narrowest(of)).build()
    with torch.no_grad():
        x = torch.rand(1, 3, 32, 32) * 2 - 1
        bare = network.layers["header3"].body[0]  # type: ignore[index,union-attr]
        bare.weight.zero_()
        assert torch.equal(network(x), x)
    grey = ImageFormat(input_range=(0.0, 1.0), output_range=(-1.0, 1.0), size=(256, 256), multiple=4)
    assert of.base == "input" and fitted(of, grey).base is None
    with pytest.raises(UsageError, match="smaller than the output"):
        read_space({**load_space("sr_tail").definition, "base": "input"})
