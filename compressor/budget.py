"""A budget: how small the generator must become, in words a user writes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from compressor.errors import UsageError

METRICS = {"macs": "macs", "params": "parameters", "parameters": "parameters", "bytes": "bytes"}
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_TEXT = re.compile(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*(%|[A-Za-z]*)\s*")


@dataclass(frozen=True)
class Budget:
    """A target for one cost of the whole generator, or for several that all hold.

    Attributes:
        text: what the user wrote.
        metric: "macs" (true multiply-accumulates at the usual input size), "parameters", or
            "bytes" (of the FP32 weights).
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

        Several with commas between, "macs=50%,params=40%", all hold; the first is what results are
        reported in.

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
            if unit in _UNITS and (metric == "bytes" or "b" not in unit) and number * _UNITS[unit] >= 1:
                return cls(text.strip(), metric, amount=round(number * _UNITS[unit]))
        raise UsageError(
            "this budget cannot be read",
            got=text,
            allowed="macs=25%, macs=2.5G, params=350k, bytes=1.8MB (a share lies between 0 % and 100 %)",
        )

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
