"""Users' own networks, through a factory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.errors import PocketganError, UsageError
from compressor.generators import ImageFormat, load


class Tiny(torch.nn.Module):
    """A network of a user's, with a submodule whose name is also a common prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.generator(x))


def tiny() -> Tiny:
    return Tiny()


tiny.image = ImageFormat(size=(40, 48), channels=(3, 3))  # type: ignore[attr-defined]


def fails() -> None:
    raise ValueError("no weights today")


def not_a_module() -> int:
    return 3


def unstated() -> Tiny:
    return Tiny()


FACTORY = f"{__name__}:tiny"


def test_own_network_through_a_factory(tmp_path: Path) -> None:
    state = Tiny().state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "t.pth")
    found = load(tmp_path / "t.pth", factory=FACTORY)
    assert found.spec.family == "custom"
    assert found.spec.arguments == {"factory": FACTORY}
    assert found.spec.image.size == (40, 48)
    assert torch.equal(found.module.state_dict()["generator.weight"], state["generator.weight"])
    given = ImageFormat((0.0, 255.0), (0.0, 255.0))
    assert load(tmp_path / "t.pth", factory=FACTORY, image=given).spec.image == given
    assert "does not state" in load(tmp_path / "t.pth", factory=f"{__name__}:unstated").notes[0]


def test_own_network_that_does_not_fit(tmp_path: Path) -> None:
    state = Tiny().state_dict()
    torch.save({"generator.weight": state["generator.weight"], "b": torch.ones(3)}, tmp_path / "t.pth")
    with pytest.raises(PocketganError, match=r"1 missing \(generator\.bias\); 1 unexpected \(b\)"):
        load(tmp_path / "t.pth", factory=FACTORY)
    torch.save(state | {"generator.weight": torch.ones(3, 1, 3, 3)}, tmp_path / "t.pth")
    with pytest.raises(PocketganError, match="3x1x3x3 in the checkpoint, 3x3x3x3 in the network"):
        load(tmp_path / "t.pth", factory=FACTORY)


@pytest.mark.parametrize(
    ("factory", "message"),
    [("tiny", "module:callable"), (":", "module:callable"),
     ("nonesuch:tiny", "cannot import"), (f"{__name__}:nonesuch", "cannot import"),
     (f"{__name__}:FACTORY", "cannot be called"), (f"{__name__}:fails", "no weights today"),
     (f"{__name__}:not_a_module", "does not give a torch.nn.Module")],
)  # fmt: skip
def test_factories_that_cannot_be_used(factory: str, message: str, tmp_path: Path) -> None:
    torch.save(Tiny().state_dict(), tmp_path / "t.pth")
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "t.pth", factory=factory)
