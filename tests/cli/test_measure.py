"""`measure` and the pictures that it compares."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffalign.metrics import vendi_score
from diffalign.metrics.diversity import embed_pixels

RED = "own_reward:red"  # 100 times the mean of the red channel


def paint(folder: Path, shades: list[float], side: int = 16) -> None:
    """Pictures of one shade of red each, with a stripe."""
    folder.mkdir(parents=True)
    for number, shade in enumerate(shades):
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[..., 0] = round(255 * shade)
        pixels[: number + 1, :, 1] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def folders(workplace: Path) -> Path:
    """Two prompts each; those of `b` are redder by 0.2, and by 0 and 0.4."""
    paint(workplace / "a" / "three-dogs", [0.2, 0.4])
    paint(workplace / "a" / "a-cat", [0.0, 0.2])
    paint(workplace / "b" / "three-dogs", [0.4, 0.6])
    paint(workplace / "b" / "a-cat", [0.0, 0.6])
    return workplace


def test_means_and_differences_of_pairs(folders: Path, diffalign) -> None:
    done = diffalign(
        "measure", "a", "new=b", "--metrics", f"{RED},vendi", "--features", "pixels", "--out", "m.json"
    )
    assert done.code == 0, done.err
    found = json.loads((folders / "m.json").read_text())
    assert found["schema"] == "diffalign.measures/1"
    first, second = found["rows"]
    assert (first["source"], second["source"], first["pictures"], first["prompts"]) == ("a", "new", 4, 2)
    assert first[RED]["mean"] == pytest.approx(20, abs=0.2) and second[RED]["mean"] == pytest.approx(
        40, abs=0.2
    )
    (less,) = found["differences"]
    assert (less["source"], less["less"]) == ("new", "a")
    assert less[RED]["mean"] == pytest.approx(20, abs=0.2)
    assert less[RED]["p"] == pytest.approx(0.5)  # of two prompts' means, 20 and 20, either sign

    def vendi(folder: str) -> float:
        files = sorted((folders / folder).glob("*.png"))
        pictures = [
            torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) / 255 for file in files
        ]
        return vendi_score(embed_pixels(torch.stack(pictures)))

    expected = (vendi("a/three-dogs") + vendi("a/a-cat")) / 2
    assert first["vendi"]["mean"] == pytest.approx(expected)
    assert "new less a" in done.out and "vendi" in done.out


def test_folders_of_other_pictures_are_not_paired(folders: Path, diffalign) -> None:
    (folders / "b" / "a-cat" / "1.png").unlink()
    done = diffalign("measure", "a", "b", "--metrics", RED, "--out", "m.json")
    assert done.code == 0
    assert json.loads((folders / "m.json").read_text())["differences"] == []
    assert "b and a are not paired: of “a cat” a has 2 pictures and b 1" in done.err


def test_prompts_pair_in_whatever_order_their_folders_are(folders: Path, diffalign) -> None:
    for one, other in (("1", "three-dogs"), ("2", "a-cat")):
        (folders / "b" / other).rename(folders / "b" / one)
        (folders / "b" / one / "prompt.txt").write_text(other.replace("-", " "))
    assert diffalign("measure", "a", "b", "--metrics", RED, "--out", "m.json").code == 0
    (less,) = json.loads((folders / "m.json").read_text())["differences"]
    assert less[RED]["mean"] == pytest.approx(20, abs=0.2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["a"], "choose one of"),
        (["a", "--metrics", "vendii"], "or a metric of pictures together: distance, vendi"),
        (["a", "--metrics", ","], "at least one folder and one of --metrics"),
        (["--metrics", RED], "at least one folder"),
        (["a", "c", "--metrics", RED], "c is no folder"),
        (["a", "a", "--metrics", RED], "the same name"),
        (["a", "--metrics", "vendi", "--features", "clap"], "unknown features 'clap'"),
        (["a", "--metrics", RED, "--out", "nowhere/m.json"], "there is no folder nowhere"),
        (["a", "--metrics", "inception", "--inception", "b"], "cannot load Inception v3 from 'b'"),
        (["a", "--metrics", "inception", "--inception", "/no/such"], "there is no folder /no/such"),
        (["a", "--metrics", "inception", "--inception", "a/b/c"], "cannot load Inception v3 from 'a/b/c'"),
        (["a", "--metrics", RED, "--device", "cuda:9"], "cannot use the device"),
    ],
)
def test_mistakes_are_explained(options: list[str], said: str, folders: Path, diffalign) -> None:
    if options == ["a"]:
        options = ["a", "--metrics", "clp"]
    done = diffalign("measure", *options)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err


def test_what_is_no_picture_is_named(folders: Path, diffalign) -> None:
    (folders / "a" / "a-cat" / "0.png").write_bytes(b"no")
    done = diffalign("measure", "a", "--metrics", RED)
    assert done.code == 2 and "0.png is no picture that can be read" in done.err
    paint(folders / "c" / "a-cat", [0.1])
    Image.new("RGB", (8, 8)).save(folders / "c" / "a-cat" / "1.png")
    done = diffalign("measure", "c", "--metrics", RED)
    assert done.code == 2 and "differ in size" in done.err


def test_a_missing_package_is_named(folders: Path, diffalign, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import own_reward

    monkeypatch.setitem(sys.modules, "scipy", None)
    done = diffalign("measure", "a", "b", "--metrics", RED)
    assert done.code == 2 and "pip install 'diffalign[rewards]'" in done.err
    assert own_reward.calls == 0  # before anything is scored


def test_a_networks_place_is_a_flag(diffalign, small: list[object], workplace: Path) -> None:
    from tests.rewards.tiny import save_clip

    save_clip(workplace / "clip")
    own = [option if option != RED else "clip@clip" for option in small]
    assert (
        diffalign("find", "a green dog", *own, "--out", "x", "--reward-device", "cpu", "--offload").code == 0
    )
    config = (workplace / "x" / "config.yaml").read_text()
    assert "offload: true" in config and "reward_device: cpu" in config
    done = diffalign("find", "a green dog", *own, "--out", "y", "--reward-device", "nowhere")
    assert done.code == 2 and "leave --reward-device out" in done.err


def test_frozen_pictures_start_from_the_same_noise(
    diffalign, small: list[object], tiny_pipeline, workplace: Path
) -> None:
    from diffalign import NoiseDistribution, Sampler
    from diffalign.rollout import as_bytes

    assert diffalign("find", "a green dog", *small, "--out", "x").code == 0
    assert diffalign("generate", "x", "-n", 3, "--frozen", "--batch-size", 3).code == 0
    noise = NoiseDistribution.standard((4, 8, 8)).sample(3, 0)
    sampler = Sampler(tiny_pipeline, num_steps=2, batch_size=3)
    expected = as_bytes(sampler(noise, "a green dog"))
    for number, picture in enumerate(expected):
        made = np.asarray(Image.open(workplace / "x" / "frozen" / f"seed0-{number:03d}.png"))
        assert (made == picture.permute(1, 2, 0).numpy()).all()
    assert diffalign("generate", "x", "-n", 3, "--batch-size", 3).code == 0
    done = diffalign("measure", "old=x/frozen", "x", "--metrics", RED, "--out", "m.json")
    assert done.code == 0 and len(json.loads(Path("m.json").read_text())["differences"]) == 1
    assert diffalign("find", "a green dog", *small, "--out", "x", "--overwrite").code == 0
    assert not list((workplace / "x" / "frozen").iterdir())


def test_other_formats_are_read(diffalign, workplace: Path) -> None:
    paint(workplace / "a", [0.2, 0.6])
    for number, kind in enumerate(("jpg", "webp")):
        file = workplace / "a" / f"{number}.png"
        Image.open(file).save(file.with_suffix(f".{kind}"), quality=100)
        file.unlink()
    done = diffalign("measure", "a", "--prompt", "a cat", "--metrics", RED, "--out", "m.json")
    assert done.code == 0
    assert json.loads(Path("m.json").read_text())["rows"][0][RED]["mean"] == pytest.approx(40, abs=2)


def test_one_picture_has_no_figure_of_several(workplace: Path, diffalign) -> None:
    pytest.importorskip("torchmetrics")
    paint(workplace / "a" / "a-dog", [0.2])
    paint(workplace / "b" / "a-dog", [0.4])
    names = ["distance", "vendi", "inception-clip"]
    options = ["--metrics", ",".join(names), "--features", "pixels", "--out", "m.json"]
    done = diffalign("measure", "a", "b", *options)
    assert done.code == 0, done.err
    found = json.loads(Path("m.json").read_text())
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    assert all(row[name] == nothing for row in found["rows"] for name in names)
    assert all(found["differences"][0][name] == {**nothing, "p": None} for name in names)
    assert "0.000" not in done.out and "1.000" not in done.out
    paint(workplace / "a" / "a-cat", [0.2, 0.6])  # the mean is of the prompt that has several
    assert diffalign("measure", "a", *options).code == 0
    (row,) = json.loads(Path("m.json").read_text())["rows"]
    assert row["vendi"]["n"] == 1 and row["vendi"]["mean"] > 1 and row["distance"]["mean"] > 0
