"""Facts, heat, preflight and `pocketgan devices`, read from simulated Snapdragon and Dimensity phones."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phone import Phone
from phone_facts import THERMAL
from phone_fixtures import wait_until_ready

from devices.adb import AdbTransport
from devices.adb_server import AdbServer, describe_state
from devices.heat import cool_down, parse_heat, read_frequencies, read_heat, time_below_top
from devices.phone import facts, list_phones, parse_properties
from devices.preflight import preflight
from devices.soc import name_of, part_of


def test_facts_of_a_snapdragon(device: AdbTransport) -> None:
    found = facts(device)
    assert (found.chip, found.soc, found.abi) == ("Snapdragon 8 Gen 3 (SM8650)", "SM8650", "arm64-v8a")
    assert (found.maker, found.model, found.android, found.sdk) == ("Acme", "Acme Eight", "14", 34)
    assert found.cores == "2x2.27 + 2x2.96 + 3x3.15 + 1x3.30 GHz"
    assert [cluster.mask for cluster in found.clusters] == [0x03, 0x60, 0x1C, 0x80]
    assert found.clusters[0].governor == "walt" and found.screen_on is True and not found.emulator
    assert found.heat.battery_percent == 83 and found.heat.words == "not throttled"
    assert json.loads(json.dumps(found.as_json()))["heat"]["temperatures_c"]["AP"] == 31.0


def test_facts_of_a_dimensity(adb: AdbServer, tmp_path: Path) -> None:
    with Phone(tmp_path / "nine", "MT6989") as phone:
        adb.connect(phone.serial)
        wait_until_ready(adb, phone.serial)
        found = facts(AdbTransport(phone.serial, adb))
        adb.disconnect(phone.serial)
    assert found.chip == "Dimensity 9300 (MT6989)"
    assert [(cluster.cores, cluster.highest_khz) for cluster in found.clusters] == [
        ((0, 1, 2, 3), 2000000),
        ((4, 5, 6), 2850000),
        ((7,), 3250000),
    ]


@pytest.mark.parametrize(
    ("properties", "part", "name"),
    [
        ({"ro.soc.model": "SM8650-AC"}, "SM8650", "Snapdragon 8 Gen 3 (SM8650)"),
        ({"ro.soc.model": "MT6989Z/A"}, "MT6989", "Dimensity 9300 (MT6989)"),
        ({"ro.board.platform": "kalama"}, "SM8550", "Snapdragon 8 Gen 2 (SM8550)"),
        ({"ro.hardware": "mt6983"}, "MT6983", "Dimensity 9000 (MT6983)"),
        ({"ro.soc.model": "Tensor G3"}, "Tensor G3", "Tensor G3"),
        ({}, None, "unknown"),
    ],
)
def test_names_of_chips(properties: dict[str, str], part: str | None, name: str) -> None:
    assert part_of(properties) == part and name_of(part) == name


def test_hostile_properties_stay_text(phone: Phone, device: AdbTransport) -> None:
    phone.properties["ro.product.model"] = "$(touch pwned)`id`\n<script>alert(1)</script>\x1b[31m"
    phone.properties["ro.build.version.sdk"] = "34; reboot"
    found = facts(device)
    assert found.model.startswith("$(touch pwned)") and found.model.isprintable() and found.sdk is None
    assert found.android == "14"  # what follows is still read
    assert not list(phone.folder.rglob("pwned"))


@settings(max_examples=150, deadline=None)
@given(st.text(), st.text())
def test_dumps_of_rubbish_are_read_without_harm(first: str, second: str) -> None:
    parse_properties(f"[a]: [{first}]\n{second}")
    heat = parse_heat(first + THERMAL.format(status=2, ap=40.5, skin=38) + second, second)
    assert heat.status is None or 0 <= heat.status <= 6
    assert all(name.isprintable() for name in heat.temperatures_c)


def test_states_in_plain_words() -> None:
    assert describe_state("device") == ("ready", None)
    assert "accept" in (describe_state("unauthorized")[1] or "")
    assert describe_state("no permissions (user in plugdev group)")[0] == "no permission on USB"
    assert describe_state("weird")[1]


def test_the_list_names_what_is_wrong(adb: AdbServer, phone: Phone, tmp_path: Path) -> None:
    with Phone(tmp_path / "locked", fault="unauthorized") as locked:
        adb._client_checked().connect(locked.serial)
        for _ in range(100):
            if adb.states().get(locked.serial) == "unauthorized":
                break
            time.sleep(0.05)
        listed = {item.serial: item for item in list_phones(adb)}
        adb.disconnect(locked.serial)
    assert listed[phone.serial].state == "ready" and listed[phone.serial].facts is not None
    assert listed[locked.serial].state == "not authorised" and listed[locked.serial].advice


def test_heat_is_waited_for_with_a_bound(phone: Phone, device: AdbTransport) -> None:
    phone.heat = [(3, 52.5), (2, 45.0), (0, 38.0)]
    waits: list[float] = []
    said: list[str] = []
    ended = cool_down(device, interval=5, sleep=waits.append, progress=said.append)
    assert ended.cooled and waits == [5, 5] and ended.heat.temperatures_c["AP"] == 38.0
    assert "throttled: severe" in said[0]
    phone.heat = [(4, 60.0)]
    ended = cool_down(device, most_seconds=12, interval=5, sleep=waits.append)
    assert not ended.cooled and ended.seconds == 12 and ended.heat.status == 4
    assert read_heat(device).battery_c == 57.0


def test_throttling_leaves_its_trace(phone: Phone, device: AdbTransport) -> None:
    before = read_frequencies(device)
    assert set(before) == {f"cpu{core}" for core in range(8)}
    stats = phone.folder / "sys/devices/system/cpu/cpu7/cpufreq/stats/time_in_state"
    stats.write_text("480000 1300\n3302400 300\n")
    assert time_below_top(before, read_frequencies(device)) == {"cpu7": 0.75}


def test_preflight_of_a_fit_phone(phone: Phone, device: AdbTransport) -> None:
    found = preflight(device)
    assert found.fit, found.as_json()
    assert {check.name for check in found.checks} >= {
        "processor",
        "space",
        "execution",
        "timeout",
        "clean-up",
    }
    assert phone.left() == []


def test_preflight_says_what_is_wrong(phone: Phone, device: AdbTransport) -> None:
    phone.properties["ro.product.cpu.abi"] = "armeabi-v7a"
    phone.free_kb = 1000
    (phone.folder / "bin/timeout").rename(phone.folder / "bin/timeout-")
    phone.heat = [(2, 45.0)]
    checks = {check.name: check for check in preflight(device).checks}
    assert checks["processor"].passed is False and checks["space"].passed is False
    assert checks["heat"].passed is None
    phone.fault = "garbage"
    assert not preflight(device).fit


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from pocketgan.cli import main

    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_the_command_lists_and_checks(
    phone: Phone, adb: AdbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--adb-server", f"{adb.host}:{adb.port}"]
    code, out, _ = run(["devices", *where], capsys)
    assert code == 0 and "Snapdragon 8 Gen 3" in out and phone.serial in out
    code, out, _ = run(["devices", *where, "--json"], capsys)
    assert json.loads(out)["phones"][0]["facts"]["soc"] == "SM8650"
    code, _, err = run(["devices", "doctor", "$(reboot)", *where], capsys)
    assert code in (1, 2) and "Traceback" not in err
    code, _, err = run(["devices", "--adb-server", "127.0.0.1:x"], capsys)
    assert code == 2
