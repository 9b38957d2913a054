"""A supernet's budget of latency: its landings are exported and measured before anything depends on them.

This happens twice: before the search, with the channels that would be kept then, so that the search aims
at what the device will do; and when it lands, before the small network is made for good. Channels alone
decide (an INT8 file's plan also depends on weights, and is made anew each time), so nothing is trained for
a landing that misses.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compressor.coronet.latency import ATTEMPTS, NEAR, LatencyModel, Measured, Meter, land_measured
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.coronet.supernet import Supernet
    from compressor.coronet.targets import ChannelCost


@dataclass
class Timed:
    """What a supernet needs to land on a latency; has state_dict and load_state_dict.

    Attributes:
        meter: measures.
        model: predicts, and is corrected by what was measured.
        target: nanoseconds.
        original: nanoseconds of the original, which shares refer to.
        absolute: the target was given as a time.
        report: of the last landing.
    """

    meter: Meter
    model: LatencyModel
    target: int
    original: int
    absolute: bool
    report: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        net: Supernet,
        meter: Meter | None,
        models: Mapping[str, ChannelCost],
        wholes: Mapping[str, int],
    ) -> Timed | None:
        """For a supernet with a budget of latency; None for one without."""
        parts = [part for part in net.budget.parts() if part.metric == "latency"]
        model = models.get("latency")
        if not parts or meter is None or not isinstance(model, LatencyModel):
            return None
        whole = wholes["latency"]
        return cls(meter, model, parts[0].limit(whole), whole, parts[0].share is None)

    def land(self, net: Supernet) -> np.ndarray:
        """(classes,) bool: land, measure, correct and land again as long as it misses."""

        def measure(keep: np.ndarray) -> Measured:
            small = net.materialise(keep)
            small = replace(small, module=copy.deepcopy(small.module).cpu().eval())
            found = self.meter.compare(net.original, small)
            progress.update(progress.done + 1, share=found.share)
            return found

        def bound(keep: np.ndarray) -> bool:
            others = [
                model(keep) >= NEAR * target
                for model, metric, target in zip(
                    net.cost.models, net.cost.metrics, net.cost.targets, strict=True
                )
                if metric != "latency"
            ]
            return any(others)

        with Progress("latency", ATTEMPTS) as progress:
            checked = land_measured(
                net.choose,
                self.model,
                measure,
                self.target,
                whole=None if self.absolute else self.original,
                bound=bound,
            )
        self.report = {
            "device": dict(self.meter.identity),
            "unit": "nanoseconds",
            "original": self.original,
            "target": self.target,
            **checked.report,
        }
        for attempt in checked.report["attempts"]:
            progress.note(
                f"latency: predicted {attempt['predicted'] / 1e6:.3f} ms, measured "
                f"{attempt['measured'] / 1e6:.3f} ms ({attempt['low'] / 1e6:.3f} to "
                f"{attempt['high'] / 1e6:.3f}) of at most {self.target / 1e6:.3f} ms"
            )
        return checked.keep

    def state_dict(self) -> dict[str, Any]:
        model = self.model
        return {
            **{"slope": model.slope, "base": model.base, "anchor": list(model.anchor)},
            "rest": torch.from_numpy(model.rest.copy()),
            **{"target": self.target, "original": self.original, "report": self.report},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.slope, self.model.base = state["slope"], state["base"]
        self.model.rest = state["rest"].numpy()
        self.model.anchor = (state["anchor"][0], state["anchor"][1])
        self.target, self.original, self.report = state["target"], state["original"], state["report"]
