"""Is this phone fit to measure on? Every assumption of the harness, checked on the phone itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compressor.errors import PocketganError
from devices.phone import PhoneFacts, facts
from devices.runner.bundle import Bundle
from devices.runner.run import Runner
from devices.transport import SPARE, DeviceError, Transport, Workspace, checked

_LOW_BATTERY = 20  # per cent; below it phones save power


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        passed: False stops a measurement; None only disturbs it.
        said: what was found. fix: what to do, or None.
    """

    name: str
    passed: bool | None
    said: str
    fix: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The check as one JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Preflight:
    """All checks of one phone, and its facts where it could be read."""

    serial: str
    facts: PhoneFacts | None
    checks: tuple[Check, ...]

    @property
    def fit(self) -> bool:
        return all(check.passed is not False for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "serial": self.serial,
            "fit": self.fit,
            "facts": self.facts.as_json() if self.facts else None,
            "checks": [check.as_json() for check in self.checks],
        }


def preflight(
    device: Transport, gather: Sequence[Callable[[], Bundle]] = (), *, allow_emulated: bool = False
) -> Preflight:
    """Look at everything a measurement relies on.

    Args:
        device: the phone.
        gather: makes the bundle of each runtime to be tested with a known answer; called when its
            turn comes, since it may build and fetch.
        allow_emulated: an emulated processor does not fail the self-test.
    """
    try:
        known = facts(device)
    except DeviceError as error:
        return Preflight(device.serial, None, (Check("connection", False, error.what, error.fix),))
    checks = [Check("connection", True, f"{known.maker} {known.model}, Android {known.android}".strip())]
    checks += _state(known)
    try:
        with Workspace(device) as work:
            checks += _tools(device)
            checks += [_space(work), _execution(work), _seccomp(device)]
            for bundle in gather:
                checks.append(_self_test(work, bundle, allow_emulated))
        checks.append(Check("clean-up", work.left_behind is None, work.left_behind or "nothing left behind"))
    except DeviceError as error:
        checks.append(Check("session", False, error.what, error.fix))
    return Preflight(device.serial, known, tuple(checks))


def _state(known: PhoneFacts) -> Iterator[Check]:
    arm = known.abi.startswith("arm64")
    yield Check(
        "processor", arm, f"{known.chip}, {known.abi or 'no ABI told'}", None if arm else "use an arm64 phone"
    )
    told = bool(known.clusters)
    yield Check("clusters", True if told else None, known.cores if told else "cpufreq tells nothing")
    heat = known.heat
    yield Check(
        "heat", None if heat.throttled else True, heat.words, "let it cool" if heat.throttled else None
    )
    level = heat.battery_percent
    low = level is not None and level < _LOW_BATTERY
    said = "unknown" if level is None else f"{level} %{', charging' if heat.charging else ''}"
    yield Check("battery", None if low else True, said, "charge the phone first" if low else None)
    dark = known.screen_on is False
    yield Check("screen", None if dark else True, "off" if dark else "on", "switch it on" if dark else None)
    if known.emulator:
        yield Check("phone", False, "this is Android's emulator", "use a real phone")


def _tools(device: Transport) -> Iterator[Check]:
    for tool in ("timeout", "sha256sum", "taskset", "df", "find"):
        there = device.shell(["which", tool]).code == 0
        yield Check(
            tool, there, "there" if there else "missing", None if there else "Android 8 or later has it"
        )


def _space(work: Workspace) -> Check:
    free = work.free_bytes()
    enough = free > 4 * SPARE
    return Check("space", enough, f"{free / 1e9:.1f} GB free", None if enough else "free some space")


def _execution(work: Workspace) -> Check:
    script = f"{work.folder}/hello"
    checked(
        work.transport, ["sh", "-c", 'printf "#!/bin/sh\\necho ran\\n" > "$1"; chmod 755 "$1"', "sh", script]
    )
    ran = work.transport.shell([script]).text.strip() == "ran"
    return Check("execution", ran, "programs run there" if ran else "programs may not run in our folder")


def _seccomp(device: Transport) -> Check:
    text = device.shell(["cat", "/proc/self/status"]).text
    mode = next((line.split()[-1] for line in text.splitlines() if line.startswith("Seccomp:")), None)
    free = mode in ("0", None)
    return Check(
        "seccomp", True if free else None, "no filter" if free else f"mode {mode}: may stop glibc programs"
    )


def _self_test(work: Workspace, gather: Callable[[], Bundle], allow_emulated: bool) -> Check:
    name = "runner"
    try:
        bundle = gather()
        name = f"runner {bundle.runtime}"
        Runner(work, bundle, allow_emulated=allow_emulated)
    except PocketganError as error:
        said = f"{error.what}: {error.got}" if error.got else error.what
        return Check(name, False, said, error.fix)
    return Check(name, True, f"{bundle.version} gives the known answer")
