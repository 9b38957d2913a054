"""One run of a generator before long work begins: a size that it cannot take is better known now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.generators import Generator


def try_size(generator: Generator, size: tuple[int, int]) -> None:
    """Run a generator once on a grey picture.

    Args:
        generator: what to run.
        size: input (height, width).

    Raises:
        UsageError: it does not take this size (its padding or its last layers need more pixels), or answers
            with something that is not the picture its format promises.
    """
    import torch

    image, given = generator.spec.image, f"{size[0]}x{size[1]}"
    image.need_pictures(generator.path)
    grey = torch.full((1, image.channels[0], *size), sum(image.input_range) / 2)
    try:
        with torch.no_grad():
            made = generator.module(grey)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
            raise
        raise UsageError(
            f"{generator.path} does not take a picture of {given} with {image.channels[0]} channels",
            got=(str(error).strip() or type(error).__name__).splitlines()[0],
            allowed=f"its usual size is {image.size[0]}x{image.size[1]}" if image.size != size else None,
            fix="give another --size, or say what it takes: --multiple N, --channels IN,OUT",
        ) from error
    found = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
    wanted = (1, image.channels[1], *(side * image.scale for side in size))
    if found != wanted:
        raise UsageError(
            f"{generator.path} does not paint what its format promises",
            got=f"{found} from a picture of {given}",
            allowed=str(wanted),
            fix="say what it makes: --scale N, --channels IN,OUT",
        )
