"""What a Snapdragon 8 Gen 3 phone and a Dimensity 9300 phone answer: the simulated phones' memories.

Written after the formats of AOSP's getprop, dumpsys and cpufreq and the two chips' published clusters;
the values are of no real unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Facts(NamedTuple):
    """properties: getprop's; clusters: (cores, lowest kHz, highest kHz) of each cpufreq policy."""

    properties: Mapping[str, str]
    clusters: tuple[tuple[tuple[int, ...], int, int], ...]


FACTS: Mapping[str, Facts] = {
    "SM8650": Facts(
        {
            "ro.soc.model": "SM8650",
            "ro.soc.manufacturer": "QTI",
            "ro.board.platform": "pineapple",
            "ro.hardware": "qcom",
            "ro.product.manufacturer": "Acme",
            "ro.product.model": "Acme Eight",
            "ro.build.version.release": "14",
            "ro.build.version.sdk": "34",
            "ro.build.fingerprint": "acme/eight/eight:14/UKQ1.231003.002/1:user/release-keys",
            "ro.product.cpu.abi": "arm64-v8a",
        },
        (
            ((0, 1), 364800, 2265600),
            ((2, 3, 4), 499200, 3148800),
            ((5, 6), 499200, 2956800),
            ((7,), 480000, 3302400),
        ),
    ),
    "MT6989": Facts(
        {
            "ro.soc.model": "MT6989",
            "ro.soc.manufacturer": "Mediatek",
            "ro.board.platform": "mt6989",
            "ro.hardware": "mt6989",
            "ro.product.manufacturer": "Acme",
            "ro.product.model": "Acme Nine",
            "ro.build.version.release": "14",
            "ro.build.version.sdk": "34",
            "ro.build.fingerprint": "acme/nine/nine:14/UP1A.231005.007/2:user/release-keys",
            "ro.product.cpu.abi": "arm64-v8a",
        },
        (((0, 1, 2, 3), 339000, 2000000), ((4, 5, 6), 622000, 2850000), ((7,), 798000, 3250000)),
    ),
}

BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 83
  scale: 100
  voltage: 4263
  temperature: {tenths}
  technology: Li-ion
"""

THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
\tkilled: false
\tbroadcasts count: -1
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue={ap}, mType=0, mName=AP, mStatus={status}}}
\tTemperature{{mValue={skin}, mType=3, mName=skin, mStatus={status}}}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{{mValue={ap}, mType=0, mName=AP, mStatus={status}}}
\tTemperature{{mValue={skin}, mType=3, mName=skin, mStatus={status}}}
\tTemperature{{mValue=28.1, mType=2, mName=battery, mStatus=0}}
Current cooling devices from HAL:
\tCoolingDevice{{mValue=0, mType=2, mName=cpufreq-cpu0}}
"""
