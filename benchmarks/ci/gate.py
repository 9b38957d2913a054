"""Is it slower than before? The verdict on two sides of one or more sessions each.

Why not simply a rank test of all samples: inferences of one session share its heat, clock, memory layout and
neighbours. Sessions of the same file on the same device therefore differ by more than their samples scatter,
and a test that takes 30 samples for 30 independent ones calls that difference a regression far more often
than its level says (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013). So a session
counts as one observation, and what is tested is the difference of the sides' means:

- A session is cut into blocks of 5 rounds in a row, so that what lasts for a few rounds does not pass for
  independent noise. Of each block its lower quartile counts: what disturbs an inference makes it longer, so
  the lower half of samples scatters less than the middle (Chen and Revels, Robust benchmarking in noisy
  environments, 2016, take the minimum, which a single lucky sample moves). A session's centre is the 20 %
  trimmed mean of its blocks' logarithmic quartiles, with Yuen's standard error from their winsorised
  variance (Biometrika 61, 1974): one disturbed block moves neither.
- To that comes what differs from session to session. Few sessions tell it badly, one not at all; so the
  variance that the sides show is weighed with an assumed one, as if 4 more sessions had shown that (a
  moderated t, Smyth 2004). The more sessions, the more theirs counts.
- A change is called slower or faster where it is beyond the noise band, beyond Student's t at 1 % (one-sided)
  of that standard error, and a rank test (Mann-Whitney, one-sided, 1 %) of the blocks agrees: no few
  outliers decide.
- Quartiles do not see what slows down only the upper half of all inferences. So the blocks' medians are put
  to the same test: where they tell a change that the quartiles do not, there is no verdict.
- The noise band is 0.59 of the threshold. A slowdown as large as the threshold is then missed, and none at
  all taken for one, as rarely as 1.64 and 2.33 standard errors say: in under 5 % and under 1 % of all
  comparisons, where the standard error is at most a quarter of the threshold.
- Where it is larger and the change not clear, there is no verdict but "unstable", with the way out:
  more sessions a side, or a larger threshold. At 5 % one session a side is never enough to say "same"; five
  are where samples scatter by some percent.
- Unstable sessions (`statistics.STABILITY_RULE`) do not count, and a side of which more than half is
  unstable gets no verdict, with one exception. Sessions that only scatter say less, but their scatter is in
  the standard error; those that drift were measured in changing circumstances, which nothing accounts for.
  So all that do not drift are compared, and a slowdown that quartiles and medians both tell is called one.
  Nothing else is: to say "same" or "faster" of such sessions would let pass what they hide.

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
from benchmarks.statistics import DRIFT, FEWEST, drift, instability

BLOCK = 5  # rounds in a row whose median is one observation; also a turn of a phone's runner
ASSUMED_DRIFT = 0.01  # standard deviation from session to session, before any are seen
_ASSUMED_FREEDOM = 4  # sessions that this assumption is worth
LEVEL = 0.01  # of a false alarm
_Z_ALARM = 2.326  # standard normal quantile of 1 - LEVEL
_Z_MISS = 1.645  # of 95 % detection
BAND = _Z_ALARM / (_Z_ALARM + _Z_MISS)  # share of the threshold: 0.586
_LOWER = 0.25  # quantile of a block that is judged
_TRIM = 0.2  # share of the blocks that is cut off at each end
_T99 = (31.82, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764)  # Student's t, 1 to 10 freedoms
_EXACT = 40  # blocks up to which the rank test's distribution is counted out
GATE_RULE = (
    f"A change of the lower quartiles of blocks of {BLOCK} rounds counts when it is beyond {BAND:.2f} of the "
    f"threshold, significant at {LEVEL:.0%} (noise within sessions from their blocks; from session to "
    f"session as they show it, weighed with an assumed {ASSUMED_DRIFT:.0%}), and a one-sided rank test of "
    f"the blocks agrees at {LEVEL:.0%}. Where it does not count, but that of the blocks' medians does, or "
    "where the standard error is above a quarter of the threshold, there is no verdict. Unstable series do "
    "not count. Where they are more than half of a side's, a slowdown counts only if all that do not drift "
    "tell it by quartiles and medians both; else there is no verdict."
)


@dataclass(frozen=True)
class _Side:
    """The sessions of one side, by one quantile of their blocks.

    Attributes:
        centres: of each session, on the logarithmic scale.
        blocks: the logarithmic quantiles of all their blocks.
        within: mean variance of a session's centre that its blocks tell.
    """

    centres: np.ndarray
    blocks: np.ndarray
    within: float


@dataclass(frozen=True)
class _Difference:
    """Of two sides, on the logarithmic scale.

    Attributes:
        before, after: the sides' centres.
        error: its standard error. reach: the same times Student's quantile.
        p: of the rank test in its direction.
        clear: whether it counts.
    """

    before: float
    after: float
    error: float
    reach: float
    p: float
    clear: bool

    @property
    def shift(self) -> float:
        return self.after - self.before

    def __str__(self) -> str:
        return f"{abs(math.expm1(self.shift)):.1%} {'slower' if self.shift > 0 else 'faster'}"


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
    allowed = math.log1p(threshold)
    before, after = ([own for own in side if instability(own) is None] for side in (baseline, new))
    for name, side, stable in (("baseline", baseline, before), ("new", new, after)):
        if 2 * len(stable) < len(side):
            return _judge_unstable(baseline, new, allowed, _refusal(name, side), (len(before), len(after)))
    low, middle = (_difference(before, after, quantile, allowed) for quantile in (_LOWER, 0.5))
    verdict: str = "same"
    reason: str | None = None
    if middle.clear and not (low.clear and low.shift * middle.shift > 0):
        verdict = "unstable"
        reason = f"lower quartiles are {low}, but medians {middle}: measure again"
    elif low.clear:
        verdict, reason = "slower" if low.shift > 0 else "faster", str(low)
    elif (relation := low.error * (_Z_ALARM + _Z_MISS) / allowed) > 1:
        verdict, wanted = "unstable", math.ceil(max(len(before), len(after)) * relation**2)
        reason = (
            f"a noise of {low.error:.1%} can hide a change of {threshold:.1%}: measure {wanted} sessions a "
            "side"
        )
    return _judged(verdict, reason, low, middle, (len(before), len(after)))


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


def _judge_unstable(
    baseline: Sequence[Sequence[float]],
    new: Sequence[Sequence[float]],
    allowed: float,
    refusal: str,
    counts: tuple[int, int],
) -> Judged:
    """A side is mostly unstable: only a slowdown is told, and only by sessions that do not drift."""
    before, after = ([own for own in side if _steady(own)] for side in (baseline, new))
    if 2 * len(before) >= len(baseline) and 2 * len(after) >= len(new):
        low, middle = (_difference(before, after, quantile, allowed) for quantile in (_LOWER, 0.5))
        if low.clear and middle.clear and min(low.shift, middle.shift) > 0:
            return _judged("slower", f"{low}, though {refusal}", low, middle, (len(before), len(after)))
    told = {"baseline_ms": _middle(baseline), "new_ms": _middle(new)}
    return Judged("unstable", refusal, sessions=counts, **told)


def _steady(samples: Sequence[float]) -> bool:
    """Whether a session may scatter, but neither drifts nor is too short."""
    return len(samples) >= FEWEST and abs(drift(samples)) <= DRIFT


def _refusal(name: str, side: Sequence[Sequence[float]]) -> str:
    refused = [why for own in side if (why := instability(own)) is not None]
    others = f" (and {len(refused) - 1} more of its sessions)" if len(refused) > 1 else ""
    return f"{name}: {refused[0]}{others}"


def _judged(
    verdict: str, reason: str | None, low: _Difference, middle: _Difference, counts: tuple[int, int]
) -> Judged:
    return Judged(
        verdict,
        reason,
        math.expm1(low.shift),
        math.expm1(low.shift - low.reach),
        math.expm1(low.shift + low.reach),
        low.p,
        math.exp(middle.before),
        math.exp(middle.after),
        counts,
    )


def _middle(sessions: Sequence[Sequence[float]]) -> float:
    """The geometric mean of the medians of sessions that may be unstable; to be shown, not judged."""
    return float(np.exp(np.mean([np.log(np.median(samples)) for samples in sessions])))


def _difference(
    baseline: Sequence[Sequence[float]], new: Sequence[Sequence[float]], quantile: float, allowed: float
) -> _Difference:
    """What one quantile of the blocks tells; `allowed` is the threshold on the logarithmic scale."""
    before, after = _side(baseline, quantile), _side(new, quantile)
    centres = float(before.centres.mean()), float(after.centres.mean())
    shift = centres[1] - centres[0]
    error, student = _standard_error(before, after)
    p = rank_test(before.blocks, after.blocks) if shift >= 0 else rank_test(after.blocks, before.blocks)
    clear = abs(shift) >= max(BAND * allowed, student * error) and p <= LEVEL
    return _Difference(*centres, error, student * error, p, clear)


def _side(sessions: Sequence[Sequence[float]], quantile: float) -> _Side:
    centres, blocks, variances = [], [], []
    for samples in sessions:
        values = np.log(np.asarray(samples, np.float64))
        ends = [*range(0, len(values) - BLOCK + 1, BLOCK), len(values)]  # what is left over joins the last
        own = np.array([np.quantile(values[start:end], quantile) for start, end in pairwise(ends)])
        blocks.append(own)
        # One block alone tells no variance of its quantiles: that of the samples is larger, which is safe.
        variances.append(_trimmed(own if len(own) > 1 else values)[1])
        centres.append(_trimmed(own)[0] if len(own) > 1 else float(own[0]))
    return _Side(np.array(centres), np.concatenate(blocks), float(np.mean(variances)))


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
