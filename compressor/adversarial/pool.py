"""The pool of earlier pictures that CycleGAN's discriminators are shown (Shrivastava et al. 2017)."""

from __future__ import annotations

import numpy as np
import torch


class ImagePool:
    """Keeps up to `size` pictures; gives, half of the time, an old one for a new one.

    What it does depends on its pictures, the seed and the step alone.

    Args:
        size: pictures kept; 0 gives every picture straight back.
        seed: of the choices.
    """

    def __init__(self, size: int, seed: int = 0):
        self.size, self.seed = size, seed
        self.images: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor, step: int) -> torch.Tensor:
        """Pictures (N, C, H, W) to show instead of these; these are kept where there is room or luck."""
        if not self.size:
            return images
        draw = np.random.default_rng([self.seed, step])
        shown = []
        for image in images.detach():
            swap, place = draw.random() < 0.5, int(draw.integers(self.size))
            if len(self.images) < self.size:
                self.images.append(image.clone())
                shown.append(image)
            elif swap:
                shown.append(self.images[place].to(image))
                self.images[place] = image.clone()
            else:
                shown.append(image)
        return torch.stack(shown)

    def state_dict(self) -> dict[str, list[torch.Tensor]]:
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, list[torch.Tensor]]) -> None:
        self.images = list(state["images"])
