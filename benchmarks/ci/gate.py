"""Is it slower than before? The verdict on two sides of one or more sessions each.

Why not simply a rank test of all samples: inferences of one session share its heat, clock, memory layout and
neighbours. Sessions of the same file on the same device therefore differ by more than their samples scatter,
and a test that takes 30 samples for 30 independent ones calls that difference a regression far more often
than its level says (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013). So a session
counts as one observation, and what is tested is the difference of the sides' means:

- A session is cut into blocks of 5 rounds in a row, so that what lasts for a few rounds does not pass for
  independent noise. Its centre is the 20 % trimmed mean of the blocks' logarithmic medians, with Yuen's
  standard error from their winsorised variance (Biometrika 61, 1974): one disturbed block moves neither.
- To that comes what differs from session to session. Few sessions tell it badly, one not at all; so the
  variance that the sides show is weighed with an assumed one, as if 4 more sessions had shown that (a
  moderated t, Smyth 2004). The more sessions, the more theirs counts.
- A change is called slower or faster where it is beyond the noise band, beyond Student's t at 1 % (one-sided)
  of that standard error, and a rank test (Mann-Whitney, one-sided, 1 %) of the blocks' medians agrees: no
  few outliers decide.
- The noise band is 0.59 of the threshold. A slowdown as large as the threshold is then missed, and none at
  all taken for one, as rarely as 1.64 and 2.33 standard errors say: in under 5 % and under 1 % of all
  comparisons, where the standard error is at most a quarter of the threshold.
- Where it is larger and the change not clear, there is no verdict but "unstable", with the way out:
  more sessions a side, or a larger threshold. Unstable sessions (`statistics.STABILITY_RULE`) do not count.
  At 5 % one session a side is never enough to say "same"; five are where samples scatter by some percent.

The rank test is written out below: SciPy, its kept implementation, is 35 MB that the light installation
on a farm's hosts does without. A test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.ci.rows import Judged
from benchmarks.statistics import instability

BLOCK = 5  # rounds in a row whose median is one observation; also a turn of a phone's runner
ASSUMED_DRIFT = 0.01  # standard deviation from session to session, before any are seen
_ASSUMED_FREEDOM = 4  # sessions that this assumption is worth
LEVEL = 0.01  # of a false alarm
_Z_ALARM = 2.326  # standard normal quantile of 1 - LEVEL
_Z_MISS = 1.645  # of 95 % detection
BAND = _Z_ALARM / (_Z_ALARM + _Z_MISS)  # share of the threshold: 0.586
_TRIM = 0.2  # share of the blocks that is cut off at each end
_T99 = (31.82, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764)  # Student's t, 1 to 10 freedoms
_EXACT = 40  # blocks up to which the rank test's distribution is counted out
GATE_RULE = (
    f"A change counts when it is beyond {BAND:.2f} of the threshold, significant at {LEVEL:.0%} (noise "
    f"within sessions from blocks of {BLOCK} rounds; from session to session as they show it, weighed with "
    f"an assumed {ASSUMED_DRIFT:.0%}), and a one-sided rank test of the blocks' medians agrees at "
    f"{LEVEL:.0%}. Where the standard error is above a quarter of the threshold and the change not clear, "
    "there is no verdict."
)


@dataclass(frozen=True)
class _Side:
    """The sessions of one side that count.

    Attributes:
        centres: of each session, on the logarithmic scale.
        blocks: the logarithmic medians of all their blocks.
        within: mean variance of a session's centre that its blocks tell.
        refused: why others do not count.
    """

    centres: np.ndarray
    blocks: np.ndarray
    within: float
    refused: tuple[str, ...]


def judge(
    baseline: Sequence[Sequence[float]], new: Sequence[Sequence[float]], *, threshold: float = 0.05
) -> Judged:
    """Compare two sides of at least one session each.

    Args:
        baseline, new: samples in milliseconds by session, in the order they were taken.
        threshold: the slowdown that must not pass, as a share; 0.05 is 5 %.

    Returns:
        "slower", "faster", "same" or "unstable", with the change, its 98 % interval and the rank test's p.

    Raises:
        ValueError: a side has no session, samples are impossible, or the threshold is not in (0, 1].
    """
    if not baseline or not new or not 0 < threshold <= 1:
        raise ValueError("each side needs a session, and the threshold lies in (0, 1]")
    before, after = _side(baseline), _side(new)
    counts = len(before.centres), len(after.centres)
    for name, side in (("baseline", before), ("new", after)):
        if len(side.refused) > len(side.centres):
            cause = f"{name}: {side.refused[0]}"
            if len(side.refused) > 1:
                cause += f" (and {len(side.refused) - 1} more of its sessions)"
            told = {"baseline_ms": _middle(baseline), "new_ms": _middle(new)}
            return Judged("unstable", cause, sessions=counts, **told)
    shift = float(after.centres.mean() - before.centres.mean())
    error, quantile = _standard_error(before, after)
    allowed = math.log1p(threshold)
    p = rank_test(before.blocks, after.blocks) if shift >= 0 else rank_test(after.blocks, before.blocks)
    verdict: str = "same"
    reason: str | None = None
    if abs(shift) >= max(BAND * allowed, quantile * error) and p <= LEVEL:
        verdict = "slower" if shift > 0 else "faster"
        reason = f"{abs(math.expm1(shift)):.1%} {verdict}"
    elif (relation := error * (_Z_ALARM + _Z_MISS) / allowed) > 1:
        verdict, wanted = "unstable", math.ceil(max(counts) * relation**2)
        reason = (
            f"a noise of {error:.1%} can hide a change of {threshold:.1%}: measure {wanted} sessions a side"
        )
    low, high = shift - quantile * error, shift + quantile * error
    return Judged(
        verdict,
        reason,
        math.expm1(shift),
        math.expm1(low),
        math.expm1(high),
        p,
        math.exp(before.centres.mean()),
        math.exp(after.centres.mean()),
        counts,
    )


def rank_test(lower: Sequence[float] | np.ndarray, upper: Sequence[float] | np.ndarray) -> float:
    """Mann and Whitney's test: how likely ranks of `upper` at least as high are if both are one population.

    Exact, ties included, up to 40 values (every choice of ranks counted); beyond, by the normal
    approximation with corrections for ties and continuity.

    Returns:
        One-sided p. 1.0 where all values are equal.
    """
    first, second = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    _, place, counts = np.unique(np.concatenate([first, second]), return_inverse=True, return_counts=True)
    doubled = (2 * np.cumsum(counts) - counts + 1)[place]  # twice the mid-ranks: whole numbers
    every, chosen = len(doubled), len(second)
    observed = int(doubled[len(first) :].sum())
    if every <= _EXACT:
        ways = np.zeros((chosen + 1, int(doubled.sum()) + 1))
        ways[0, 0] = 1.0
        for rank in doubled:
            ways[1:, rank:] += ways[:-1, :-rank].copy()
        return float(ways[chosen, observed:].sum() / ways[chosen].sum())
    mean = chosen * (every + 1)
    spread = len(first) * chosen / (3 * every * (every - 1)) * (every**3 - every - (counts**3 - counts).sum())
    if spread <= 0:
        return 1.0
    z = (observed - 1 - mean) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))


def _middle(sessions: Sequence[Sequence[float]]) -> float:
    """The geometric mean of the medians of sessions that may be unstable; to be shown, not judged."""
    return float(np.exp(np.mean([np.log(np.median(samples)) for samples in sessions])))


def _side(sessions: Sequence[Sequence[float]]) -> _Side:
    refused, centres, blocks, variances = [], [], [], []
    for samples in sessions:
        if (reason := instability(samples)) is not None:
            refused.append(reason)
            continue
        values = np.log(np.asarray(samples, np.float64))
        ends = [*range(0, len(values) - BLOCK + 1, BLOCK), len(values)]  # what is left over joins the last
        own = np.array([np.median(values[start:end]) for start, end in pairwise(ends)])
        blocks.append(own)
        centre, variance = _trimmed(own if len(own) > 1 else values)
        centres.append(centre)
        variances.append(variance)
    return _Side(
        np.array(centres),
        np.concatenate(blocks) if blocks else np.array([]),
        float(np.mean(variances)) if variances else 0.0,
        tuple(refused),
    )


def _trimmed(values: np.ndarray) -> tuple[float, float]:
    """The trimmed mean, and Yuen's variance of it."""
    ordered, cut = np.sort(values), int(_TRIM * len(values))
    kept = ordered[cut : len(values) - cut]
    winsorised = np.clip(ordered, kept[0], kept[-1])
    return float(kept.mean()), float(winsorised.var(ddof=1)) * (len(values) - 1) / (
        len(kept) * (len(kept) - 1)
    )


def _standard_error(before: _Side, after: _Side) -> tuple[float, float]:
    """Of the difference of the sides' means, on the logarithmic scale, and its quantile at LEVEL."""
    sides = (before, after)
    freedom = len(before.centres) + len(after.centres) - 2
    squares = sum(float(((side.centres - side.centres.mean()) ** 2).sum()) for side in sides)
    every = _ASSUMED_FREEDOM + freedom
    parts = (
        (_ASSUMED_FREEDOM * (ASSUMED_DRIFT**2 + side.within) + squares) / every / len(side.centres)
        for side in sides
    )
    return math.sqrt(sum(parts)), _student(every)


def _student(freedom: int) -> float:
    """Student's t at 99 %; beyond the table by Fisher's expansion, good to 0.01."""
    if freedom <= len(_T99):
        return _T99[freedom - 1]
    z = _Z_ALARM
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
