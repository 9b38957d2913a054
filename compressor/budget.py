"""A budget: how small the generator must become, in words a user writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from compressor.errors import UsageError

METRICS = {"macs": "macs", "params": "parameters", "parameters": "parameters", "bytes": "bytes"}
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_TEXT = re.compile(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*(%|[A-Za-z]*)\s*")


@dataclass(frozen=True)
class Budget:
    """A target for one cost of the whole generator.

    Attributes:
        text: what the user wrote.
        metric: "macs" (true multiply-accumulates at the usual input size), "parameters", or
            "bytes" (of the FP32 weights).
        share: the part of the original's cost to keep, in (0, 1), or None.
        amount: the absolute target, or None.
    """

    text: str
    metric: str
    share: float | None = None
    amount: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "macs=25%", "macs=2.5G", "params=350k" or "bytes=1.8MB" (1 MB = 10^6 bytes).

        Raises:
            UsageError: the text is none of these.
        """
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

    def target(self, original: int) -> int:
        """The largest allowed cost, given the original's.

        Raises:
            UsageError: the original is already within the budget.
        """
        target = int(original * self.share) if self.share is not None else int(self.amount or 0)
        if target >= original:
            raise UsageError(
                f"the generator already meets the budget {self.text}",
                got=f"{original:,} {self.metric}",
                fix="ask for less, or go straight to: pocketgan export",
            )
        return target
