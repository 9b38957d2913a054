"""All that is fuzzed, by name."""

from __future__ import annotations

from benchmarks.fuzz import networks, phones, records, settings, weights

TARGETS = {
    **weights.TARGETS,
    **settings.TARGETS,
    **records.TARGETS,
    **phones.TARGETS,
    **networks.TARGETS,
}
