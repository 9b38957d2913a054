"""The quickstart's photographs: squares cut from the free sample photographs inside scikit-image.

Their licences, as scikit-image states them: astronaut (NASA), rocket (SpaceX) and hubble_deep_field
(NASA) are in the public domain; chelsea (Stefan van der Walt), coffee (Rachel Michetti, courtesy of Pikolo
Espresso Bar), camera (Lav Varshney), retina, brick and grass are CC0.

The cat and the coffee are held out: neither the quickstart's generator nor its compression trains on them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compressor.data.images import write_image

SIDE = 256

# file name: (function of skimage.data, left, top, side of the square in pixels, mirrored left to right)
TRAIN = {
    "astronaut_face": ("astronaut", 90, 0, 290, False),
    "astronaut_flag": ("astronaut", 0, 0, 256, False),
    "astronaut_helmet": ("astronaut", 256, 256, 256, False),
    "astronaut_portrait": ("astronaut", 40, 0, 420, True),
    "astronaut_shuttle": ("astronaut", 256, 0, 256, False),
    "astronaut_suit": ("astronaut", 60, 190, 322, False),
    "astronaut_whole": ("astronaut", 0, 0, 512, False),
    "astronaut_whole_mirrored": ("astronaut", 0, 0, 512, True),
    "brick": ("brick", 0, 0, 384, False),
    "camera_building": ("camera", 240, 60, 272, False),
    "camera_man": ("camera", 110, 50, 300, False),
    "camera_whole": ("camera", 0, 0, 512, True),
    "grass": ("grass", 0, 0, 384, False),
    "hubble_left": ("hubble_deep_field", 0, 0, 400, False),
    "hubble_right": ("hubble_deep_field", 420, 400, 400, False),
    "retina": ("retina", 300, 200, 800, False),
    "rocket_centre": ("rocket", 110, 0, 427, False),
    "rocket_engines": ("rocket", 200, 171, 256, False),
    "rocket_lights": ("rocket", 20, 171, 256, True),
    "rocket_right": ("rocket", 213, 0, 427, True),
    "rocket_tip": ("rocket", 200, 40, 256, False),
    "rocket_tower": ("rocket", 0, 0, 427, False),
}
HELD_OUT = {
    "cat": ("chelsea", 80, 0, 300, False),
    "cat_eyes": ("chelsea", 100, 10, 256, True),
    "coffee_cup": ("coffee", 100, 0, 400, False),
    "coffee_spoon": ("coffee", 250, 90, 256, False),
}


def write_photographs(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the photographs as 256x256 PNG files, always the same.

    Args:
        folder: gets `train/` and `held_out/`.

    Returns:
        The paths for training and those held out, each sorted.
    """
    return _write(TRAIN, folder / "train"), _write(HELD_OUT, folder / "held_out")


def _write(squares: dict[str, tuple[str, int, int, int, bool]], folder: Path) -> list[Path]:
    paths = []
    for name, square in sorted(squares.items()):
        path = folder / f"{name}.png"
        write_image(path, cut(*square))
        paths.append(path)
    return paths


def cut(source: str, left: int, top: int, side: int, mirrored: bool) -> np.ndarray:
    """One square of a sample photograph, scaled to 256x256: (256, 256, 3) in [0, 1]."""
    import skimage.data
    from PIL import Image

    image = Image.fromarray(getattr(skimage.data, source)()).convert("RGB")
    image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    pixels = np.asarray(image, np.float32) / 255.0
    return pixels[:, ::-1] if mirrored else pixels
