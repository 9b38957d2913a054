"""Marketing names of phone chips. Cores and clusters are read from the phone, never from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Soc(NamedTuple):
    """A chip's name as people know it, and its neural processor."""

    name: str
    npu: str


SOCS: Mapping[str, Soc] = {
    "SM8350": Soc("Snapdragon 888", "Hexagon v68"),
    "SM8450": Soc("Snapdragon 8 Gen 1", "Hexagon v69"),
    "SM8475": Soc("Snapdragon 8+ Gen 1", "Hexagon v69"),
    "SM8550": Soc("Snapdragon 8 Gen 2", "Hexagon v73"),
    "SM8635": Soc("Snapdragon 8s Gen 3", "Hexagon v73"),
    "SM8650": Soc("Snapdragon 8 Gen 3", "Hexagon v75"),
    "SM8750": Soc("Snapdragon 8 Elite", "Hexagon v79"),
    "SM8845": Soc("Snapdragon 8 Gen 5", "Hexagon v81"),
    "SM8850": Soc("Snapdragon 8 Elite Gen 5", "Hexagon v81"),
    "MT6893": Soc("Dimensity 1200", "APU"),
    "MT6895": Soc("Dimensity 8100", "APU"),
    "MT6983": Soc("Dimensity 9000", "APU"),
    "MT6985": Soc("Dimensity 9200", "APU"),
    "MT6989": Soc("Dimensity 9300", "APU"),
    "MT6991": Soc("Dimensity 9400", "APU"),
    "MT6993": Soc("Dimensity 9500", "APU"),
}
"""By the part's number, as ro.soc.model gives it."""

PLATFORMS: Mapping[str, str] = {
    "lahaina": "SM8350",
    "taro": "SM8450",
    "kalama": "SM8550",
    "pineapple": "SM8650",
    "sun": "SM8750",
}
"""Qualcomm's platform names -> part, for phones before Android 12, which tell no part's number.

A platform may serve several parts; its first one is given.
"""


def part_of(properties: Mapping[str, str]) -> str | None:
    """The chip's part number from getprop's answers, best source first, or None."""
    for key in ("ro.soc.model", "ro.board.platform", "ro.hardware", "ro.mediatek.platform"):
        value = properties.get(key, "").strip()
        part = PLATFORMS.get(value.lower(), value.upper())
        # Vendors append grades and bins: "SM8650-AC", "MT6989Z/A".
        known = next((known for known in SOCS if part.startswith(known)), None)
        if known:
            return known
    return properties.get("ro.soc.model", "").strip() or properties.get("ro.board.platform") or None


def name_of(part: str | None) -> str:
    """ "Snapdragon 8 Gen 3 (SM8650)", or what the phone says of itself, or "unknown"."""
    if part is not None and part in SOCS:
        return f"{SOCS[part].name} ({part})"
    return part or "unknown"
