"""A budget: how small the generator must become, in words a user writes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from compressor.errors import UsageError

METRICS = {
    **{"macs": "macs", "params": "parameters", "parameters": "parameters", "bytes": "bytes"},
    **{"memory": "memory", "latency": "latency"},
}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9}
_TIMES = {"us": 10**3, "ms": 10**6, "s": 10**9}
_UNITS = {
    **{"macs": _COUNTS, "parameters": _COUNTS, "bytes": _COUNTS | _BYTES},
    **{"memory": _COUNTS | _BYTES, "latency": _TIMES},
}
_TEXT = re.compile(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*(%|[A-Za-z]*)\s*")
_BARE = re.compile(r"\s*\d+(?:\.\d+)?\s*(%|[A-Za-z]*)\s*")


@dataclass(frozen=True)
class Budget:
    """A target for one cost of the whole generator, or for several that all hold.

    Attributes:
        text: what the user wrote.
        metric: "macs" (true multiply-accumulates at the usual input size), "parameters", "bytes" (of
            the FP32 weights), "memory" (bytes of the activations alive at the peak, FP32, at the usual
            input size; see `compressor.coronet.memory`), or "latency" (nanoseconds, measured).
        share: the part of the original's cost to keep, in (0, 1), or None.
        amount: the absolute target, or None.
        also: targets for other metrics, which hold beside this one.
    """

    text: str
    metric: str
    share: float | None = None
    amount: int | None = None
    also: tuple[Budget, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "macs=25%", "macs=2.5G", "params=350k" or "bytes=1.8MB" (1 MB = 10^6 bytes).

        Also "memory=8MB" and "latency=12ms". Several with commas between, "macs=50%,params=40%", all
        hold; the first is what results are reported in.

        Raises:
            UsageError: the text is none of these, or names a metric twice.
        """
        first, *others = [cls._parse_one(part) for part in text.split(",")]
        if len({budget.metric for budget in (first, *others)}) <= len(others):
            raise UsageError("the budget names a metric twice", got=text, allowed="each at most once")
        return replace(first, text=text.strip(), also=tuple(others))

    @classmethod
    def _parse_one(cls, text: str) -> Budget:
        match = _TEXT.fullmatch(text)
        metric = METRICS.get(match[1].lower()) if match else None
        if match and metric:
            number, unit = float(match[2]), match[3].lower()
            if unit == "%" and 0 < number < 100:
                return cls(text.strip(), metric, share=number / 100)
            units = _UNITS[metric]
            if unit in units and 1 <= number * units[unit] < math.inf:
                return cls(text.strip(), metric, amount=round(number * units[unit]))
        raise UsageError(
            "this budget cannot be read",
            got=text,
            allowed="macs=25%, macs=2.5G, params=350k, bytes=1.8MB, memory=8MB, latency=12ms (a share lies "
            "between 0 % and 100 %)",
        )

    @classmethod
    def parse_family(cls, text: str) -> tuple[Budget, ...]:
        """The budgets of one network, or of a family: "macs=75%,50%,25%" gives three, falling.

        A share (or amount) without a name continues the metric before it. A family has one metric.

        Raises:
            UsageError: the text is neither, a family names several metrics, or does not fall.
        """
        parts = text.split(",")
        name, equals, _ = parts[0].partition("=")
        if not (equals and any(_BARE.fullmatch(part) for part in parts[1:])):
            return (cls.parse(text),)
        if named := [part.strip() for part in parts[1:] if not _BARE.fullmatch(part)]:
            raise UsageError(
                "a family of networks has one metric",
                got=f"{', '.join(named)} beside a family of {name.strip()}",
                allowed="macs=75%,50%,25% (one network each) or macs=50%,params=40% (one that meets both)",
            )
        members = tuple(cls._parse_one(f"{name}={part}") for part in (parts[0].split("=")[1], *parts[1:]))
        members = tuple(replace(member, text="".join(member.text.split())) for member in members)
        sizes = [(member.share or 0, member.amount or 0) for member in members]
        kinds = {member.share is None for member in members}
        if len(kinds) > 1 or sizes != sorted(set(sizes), reverse=True):
            raise UsageError(
                "the members of a family must fall",
                got=text,
                allowed="all shares or all amounts, each smaller than the one before: macs=75%,50%,25%",
            )
        return members

    def settled(self, original: Mapping[str, int], aim: Mapping[str, float] | None = None) -> Budget:
        """The same budget in amounts.

        Args:
            original: what the original costs by each metric.
            aim: by metric, the part of its limit to aim at, where not all of it.
        """
        parts = []
        for part in self.parts():
            most = part.limit(original[part.metric]) * (aim or {}).get(part.metric, 1)
            parts.append(replace(part, share=None, amount=int(most)))
        return replace(parts[0], also=tuple(replace(part, also=()) for part in parts[1:]))

    def parts(self) -> tuple[Budget, ...]:
        """This target and those beside it."""
        return (self, *self.also)

    def limit(self, original: int) -> int:
        """The largest allowed cost, given the original's, whether that is already within it or not."""
        return int(original * self.share) if self.share is not None else int(self.amount or 0)

    def target(self, original: int) -> int:
        """The largest allowed cost, given the original's.

        Raises:
            UsageError: the original is already within the budget.
        """
        target = self.limit(original)
        if target >= original:
            raise UsageError(
                f"the generator already meets the budget {self.text}",
                got=f"{original:,} {self.metric}",
                fix="ask for less, or go straight to: pocketgan export",
            )
        return target
