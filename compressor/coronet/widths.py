"""How wide a generator's latent vectors still are while it is searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.graph import ChannelGraph

if TYPE_CHECKING:
    from compressor.coronet.supernet import Supernet

ALIVE = 5e-3  # an entry below this counts as gone (DHP's reference code)


def latent_vectors(graph: ChannelGraph) -> dict[str, np.ndarray]:
    """The classes of each latent vector that can be pruned, by the first layer that makes them."""
    found: dict[str, np.ndarray] = {}
    for layer in graph.layers.values():
        for group in dict.fromkeys(graph.groups[layer.outputs].tolist()):
            members = np.flatnonzero(graph.prunable & (graph.groups == group))
            if len(members) and not any(members[0] in other for other in found.values()):
                name, again = layer.name, 2
                while name in found:  # a layer whose channels go different ways makes several
                    name, again = f"{layer.name} ({again})", again + 1
                found[name] = members
    return found


class Widths:
    """Reads off what is alive in each latent vector of one search; `compressor.training.watch` keeps it.

    Attributes:
        kind: the key of what is kept, in prune.json.
        target: of the cost over the original's.
        names: of the latent vectors; `whole` are their lengths.
    """

    kind = "widths"

    def __init__(self, net: Supernet):
        self._net = net
        self._vectors = latent_vectors(net.graph)
        self.names = list(self._vectors)
        self.whole = [len(members) for members in self._vectors.values()]
        self.target = net.target / net.whole

    @property
    def searching(self) -> bool:
        """Whether there is a hypernetwork to look at."""
        return hasattr(self._net, "hyper")

    def entries(self) -> np.ndarray:
        """(prunable classes,) the magnitudes of the latent entries."""
        return self._net.scores()[self._net.graph.prunable]

    def kept(self) -> list[int]:
        """Entries alive in each vector; once landed, those that stay."""
        alive = self._net.keep if self._net.keep is not None else self._net.scores() > ALIVE
        return [int(alive[members].sum()) for members in self._vectors.values()]

    def latent(self) -> list[float]:
        """Mean magnitude of each vector's entries."""
        scores = self._net.scores()
        return [float(f"{scores[members].mean():.4g}") for members in self._vectors.values()]

    def rows(self) -> dict[str, list[Any]]:
        """`kept` and `latent` as they are now."""
        return {"kept": self.kept(), "latent": self.latent()}

    def document(self, history: Mapping[str, list[Any]], steps: list[int]) -> dict[str, Any]:
        """Widths over time, for prune.json: of each latent vector, `kept` and `latent` by step."""
        return {
            "steps": steps,
            "vectors": [
                {
                    "name": name,
                    "whole": whole,
                    "kept": [row[index] for row in history["kept"]],
                    "latent": [row[index] for row in history["latent"]],
                }
                for index, (name, whole) in enumerate(zip(self.names, self.whole, strict=True))
            ],
        }

    def board(self, writer: Any, tail: str, rows: Mapping[str, list[Any]], step: int) -> None:
        """The same for TensorBoard."""
        for vector, kept in zip(self.names, rows["kept"], strict=True):
            writer.add_scalar(f"width{tail}/{vector}", kept, step)
        writer.add_histogram(f"latent{tail}", self.entries(), step)
