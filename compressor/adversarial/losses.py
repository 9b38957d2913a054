"""The two adversarial losses of Pix2Pix and CycleGAN."""

from __future__ import annotations

import torch
import torch.nn.functional as F

FORMS = ("vanilla", "lsgan")


def adversarial(scores: torch.Tensor, real: bool, form: str) -> torch.Tensor:
    """How far a discriminator's scores are from calling the pictures real (or made).

    vanilla: -log sigmoid(s), or -log(1 - sigmoid(s)) (Goodfellow et al. 2014);
    lsgan: (s - 1)^2, or s^2 (Mao et al. 2017). The mean over all scores.

    Args:
        scores: logits of any shape.
        real: what they should say. The generator's loss is that of real on its own pictures.
        form: one of `FORMS`.
    """
    wanted = torch.full_like(scores, float(real))
    return (
        F.binary_cross_entropy_with_logits(scores, wanted)
        if form == "vanilla"
        else F.mse_loss(scores, wanted)
    )


def discriminator_loss(real: torch.Tensor, made: torch.Tensor, form: str) -> torch.Tensor:
    """Half the sum over real and made pictures, which slows the discriminator down (Pix2Pix, 3.3)."""
    return 0.5 * (adversarial(real, True, form) + adversarial(made, False, form))
