"""Feature networks against an independent build of VGG, and losses in closed form."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compressor.errors import PocketganError, UsageError
from compressor.generators.spec import ImageFormat
from compressor.training import features as module
from compressor.training.features import Features, feature_weights
from compressor.training.losses import Distance, Weights, gram, total_variation

PARTIAL = "vgg19_blocks1to3.safetensors"
CONFIGURATIONS = {  # as Simonyan & Zisserman's table and torchvision write them
    16: [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    19: [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],
}
# Where torchvision's users read layers: Johnson's four of VGG16; the last convolution of VGG19.
NUMBERS = {16: {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22}, 19: {"conv5_4": 34, "relu3_4": 17}}


def vgg(depth: int) -> nn.Sequential:
    """torchvision's `features`, written anew."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in CONFIGURATIONS[depth]:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, int(entry), 3, padding=1), nn.ReLU()]
            channels = int(entry)
    return nn.Sequential(*layers)


@pytest.fixture(scope="module", params=[16, 19])
def published(request, tmp_path_factory) -> tuple[int, nn.Sequential, Path]:
    """A VGG with random weights, saved under torchvision's names with a classifier beside."""
    torch.manual_seed(0)
    network = vgg(request.param)
    for part in network:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    path = tmp_path_factory.mktemp("vgg") / "vgg.pth"
    state = {f"features.{name}": value for name, value in network.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2)}, path)
    return request.param, network, path


def test_keras_features_are_as_large_as_torchvisions(shared_data):
    """In both scales: Keras' network fed 255 times as much gives, but for biases, 255 times as much."""
    pictures = torch.rand(1, 3, 16, 16)
    for normalise, gain in ((True, 57.375), (False, 255.0)):
        ours = Features(shared_data / "weights" / PARTIAL, ["conv1_1"], normalise=normalise)
        entry = pictures[:, [2, 1, 0]] * 255 - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
        plain = nn.functional.conv2d(entry, ours.weight1_1, ours.bias1_1, padding=1)
        assert torch.allclose(ours(pictures)[0] * gain, plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("normalise", [False, True])
def test_torchvision_layers_are_found_by_name(published, normalise):
    depth, network, path = published
    ours = Features(path, list(NUMBERS[depth]), normalise=normalise)
    assert ours.taps == list(NUMBERS[depth])
    pictures = torch.rand(1, 3, 32, 48)
    entry = pictures
    if normalise:
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        entry = (pictures - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        for number, found in zip(NUMBERS[depth].values(), ours(pictures), strict=True):
            wanted = network[: number + 1](entry)
            assert found.shape == wanted.shape
            assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_real_keras_weights_equal_an_independent_network(shared_data):
    state = load_file(shared_data / "weights" / PARTIAL)
    network = vgg(19)
    names = [f"block{b}_conv{n}" for b, count in ((1, 2), (2, 2), (3, 4)) for n in range(1, count + 1)]
    convolutions = [part for part in network if isinstance(part, nn.Conv2d)]
    for name, layer in zip(names, convolutions, strict=False):
        layer.load_state_dict({"weight": state[f"{name}.weight"], "bias": state[f"{name}.bias"]})
    ours = Features(shared_data / "weights" / PARTIAL, ["relu1_2", "relu2_2", "relu3_3", "conv3_4"])
    pictures = torch.rand(2, 3, 32, 32)
    blue_first = pictures[:, [2, 1, 0]] * 255 - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    with torch.no_grad():
        for number, found in zip((3, 8, 15, 16), ours(pictures), strict=True):
            wanted = network[: number + 1](blue_first) / 57.375
            assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_deepest_layer_there_is_takes_the_place_of_a_missing_one(shared_data, published):
    partial = shared_data / "weights" / PARTIAL
    assert Features(partial, ["relu4_3", "conv5_4", "relu2_2"]).taps == ["relu3_4", "conv3_4", "relu2_2"]
    style = Distance(ImageFormat(), partial, "style")
    assert style.notes == (f"{PARTIAL} has no relu4_3; relu3_4 takes its place",)
    depth, _, path = published
    wanted = {16: "conv5_3", 19: "conv5_4"}[depth]
    assert Features(path, ["conv5_4"]).taps == [wanted]


def test_a_network_with_batch_norm_is_refused(tmp_path):
    save_file(
        {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.1.running_mean": torch.zeros(64),
         "features.3.weight": torch.zeros(64, 64, 3, 3)},
        tmp_path / "bn.safetensors",
    )  # fmt: skip
    with pytest.raises(PocketganError, match="without batch norm"):
        Features(tmp_path / "bn.safetensors", ["relu1_2"])


def test_gram_of_known_features():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, -1.0]]]])  # 2 channels, 2x2
    expected = torch.tensor([[[30.0, -3.0], [-3.0, 2.0]]]) / 8
    assert torch.equal(gram(features), expected)


def test_total_variation_of_a_ramp_is_its_slope():
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    ramp = (0.25 * rows + 0.5 * columns)[None, None]
    assert total_variation(ramp).item() == pytest.approx(0.75)
    assert total_variation(torch.ones(1, 3, 4, 4)).item() == 0


def test_terms_add_up(shared_data):
    """Each term alone, computed here from the features; then their weighted sum."""
    path = shared_data / "weights" / PARTIAL
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1

    def part(**weights: float) -> float:
        given = Weights(**{"pixel": 0.0, **weights})
        return Distance(ImageFormat(), path, "style", weights=given)(a, b).item()

    layers = Features(path, ["relu1_2", "relu2_2", "relu3_3", "relu3_4"], normalise=False)
    ours, theirs = layers((a + 1) / 2), layers((b + 1) / 2)
    style = sum(float((gram(x) - gram(y)).square().mean()) for x, y in zip(ours, theirs, strict=True))
    assert part(style=1.0) == pytest.approx(style, rel=1e-4)
    assert part(content=1.0) == pytest.approx((ours[1] - theirs[1]).abs().mean().item(), rel=1e-5)
    assert part(pixel=1.0) == pytest.approx((a - b).abs().mean().item() / 2, rel=1e-5)
    deep = Features(path, ["conv3_4"])
    wanted = (deep((a + 1) / 2)[0] - deep((b + 1) / 2)[0]).abs().mean().item()
    assert part(feature=1.0) == pytest.approx(wanted, rel=1e-5)
    assert part(total_variation=1.0) == pytest.approx(total_variation((a + 1) / 2).item(), rel=1e-5)
    whole = Distance(ImageFormat(), path, "style")(a, b).item()
    published = 1e5 * part(style=1.0) + part(content=1.0) + 0.02 * part(pixel=1.0)
    assert whole == pytest.approx(published, rel=1e-4)
    upscaling = Distance(ImageFormat(), path, "feature")(a, b).item()
    assert upscaling == pytest.approx(part(feature=1.0) + 0.01 * part(pixel=1.0), rel=1e-4)


@pytest.mark.parametrize("loss", ["relative", "style", "feature"])
def test_losses_vanish_at_the_teachers_picture_and_lead_there(shared_data, loss):
    distance = Distance(ImageFormat(), shared_data / "weights" / PARTIAL, loss)
    torch.manual_seed(0)
    wanted = torch.rand(1, 3, 32, 32) * 2 - 1
    assert distance(wanted, wanted).item() == 0
    made = (wanted + 0.3 * torch.randn_like(wanted)).requires_grad_(True)
    loss_there = distance(made, wanted)
    loss_there.backward()
    assert made.grad is not None
    step = made.grad / made.grad.norm()
    assert distance((made - 0.1 * step).detach(), wanted) < loss_there


def test_features_need_weights_and_names_need_a_loss():
    with pytest.raises(UsageError, match="--perceptual"):
        Distance(ImageFormat(), None, "style")
    with pytest.raises(UsageError, match="pixel, relative"):
        Distance(ImageFormat(), None, "styled")


def test_a_download_is_checked_and_absent_hosts_are_named(tmp_path, monkeypatch):
    content = b"weights" * 100
    digits, cache = hashlib.sha256(content).hexdigest()[:8], tmp_path / "cache"
    for name in (f"vgg16-{digits}.pth", "vgg16-00000000.pth"):
        (tmp_path / name).write_bytes(content)

    def published(url):
        monkeypatch.setitem(module.PUBLISHED, "vgg16", url)
        return feature_weights("vgg16", cache)

    good = published((tmp_path / f"vgg16-{digits}.pth").as_uri())
    assert good.read_bytes() == content
    with pytest.raises(PocketganError, match=r"(?s)not give the file.*00000000.*--perceptual"):
        published((tmp_path / "vgg16-00000000.pth").as_uri())
    with pytest.raises(PocketganError, match=r"(?s)cannot be downloaded.*by hand"):
        published("http://127.0.0.1:9/vgg16-397923af.pth")
    with pytest.raises(PocketganError, match=r"(?s)cannot be downloaded.*by hand"):
        published((tmp_path / "vgg16-11111111.pth").as_uri())
    assert list(cache.iterdir()) == [good]  # no part is left


def test_names_mean_torchvisions_files_in_the_cache(tmp_path, monkeypatch):
    for name, url in module.PUBLISHED.items():
        (tmp_path / url.rpartition("/")[2]).write_bytes(b"")
        assert feature_weights(name, tmp_path) == tmp_path / url.rpartition("/")[2]
        assert feature_weights(Path("/recipe/folder") / name, tmp_path).parent == tmp_path
    assert feature_weights(Path("other.pth"), tmp_path) == Path("other.pth")
