"""Published files to safetensors: layouts, determinism, mistakes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from talkjax import commands, convert_weights
from talkjax.errors import UserError
from talkjax.metrics import lpips
from tests import torch_python

GOLDEN = Path(__file__).parent / "golden"
INCEPTION = GOLDEN / "inception.safetensors"


def save_zeros(path, shapes):
    safetensors.numpy.save_file({k: np.zeros(s, np.float16) for k, s in shapes.items()}, path)
    return path


def lpips_files(folder, **changes):
    """A torchvision SqueezeNet and LPIPS heads."""
    trunk, heads = {"classifier.1.weight": (10, 512, 1, 1)}, {}
    for name, shape in lpips.shapes().items():
        if name.startswith("lin."):
            heads[name.removeprefix("lin.")] = shape
        else:
            trunk[name.removeprefix("squeezenet.")] = shape
    return [
        save_zeros(folder / "squeezenet1_1.safetensors", trunk | changes),
        save_zeros(folder / "squeeze.safetensors", heads),
    ]


def syncnet_file(folder, **changes):
    shapes = convert_weights.syncnet_shapes() | changes
    return save_zeros(folder / "syncnet_v2.safetensors", shapes)


def test_lpips(tmp_path):
    files, out = lpips_files(tmp_path), tmp_path / "lpips.safetensors"
    message = convert_weights.convert("lpips", files, out)
    assert lpips.load(out).keys() == lpips.shapes().keys()
    for path in (*files, out):
        assert hashlib.sha256(path.read_bytes()).hexdigest() + f"  {path}" in message
    assert f"--lpips={out}" in message and f"--fid={out}" in message
    first = out.read_bytes()
    convert_weights.convert("lpips", files[::-1], out)  # in any order, the same bytes
    assert out.read_bytes() == first
    assert not list(tmp_path.glob(".*"))


def test_inception(tmp_path):
    out = tmp_path / "inception.safetensors"
    assert f"--fid={out}" in convert_weights.convert("inception", [INCEPTION], out)
    source, result = safetensors.numpy.load_file(INCEPTION), safetensors.numpy.load_file(out)
    assert set(source) - set(result) == {"fc.weight", "fc.bias"}
    for name, value in result.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, source[name])


def test_syncnet(tmp_path):
    counts = {"netcnnaud.1.num_batches_tracked": (1,)}
    out = tmp_path / "syncnet.safetensors"
    message = convert_weights.convert("syncnet", [syncnet_file(tmp_path, **counts)], out)
    assert f"--sync_expert={out}" in message
    result = safetensors.numpy.load_file(out)
    assert {k: v.shape for k, v in result.items()} == convert_weights.syncnet_shapes()
    assert len(result) == 4 * (6 + 6 + 1 + 1) + 2 * (6 + 6 + 2 + 2)
    assert result["netcnnlip.0.weight"].shape == (96, 3, 5, 7, 7)
    assert result["netcnnaud.19.running_var"].shape == (512,)
    assert result["netfclip.3.bias"].shape == (1024,)
    assert {v.dtype.name for v in result.values()} == {"float32"}


def refused(match, kind, files, out):
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else None
    with pytest.raises(UserError, match=match) as error:
        convert_weights.convert(kind, files, out, torch_python.PATH)
    text = str(error.value)
    assert "\n" not in text and not out.is_file()
    assert before is None or sorted(out.parent.iterdir()) == before


def test_wrong_files(tmp_path):
    out = tmp_path / "out.safetensors"
    trunk, heads = lpips_files(tmp_path)
    for files in ([], [trunk], [heads], [trunk, trunk], [heads, heads], [trunk, heads, heads]):
        refused("lpips needs two files", "lpips", files, out)
    refused("lpips needs two files", "lpips", [INCEPTION, heads], out)
    refused("inception needs one file", "inception", [INCEPTION, INCEPTION], out)
    refused("not pytorch-fid's Inception", "inception", [trunk], out)
    refused("does not fit the model: missing", "syncnet", [INCEPTION], out)
    refused("not found: .*; check", "syncnet", [tmp_path / "none"], out)
    refused("kind='vgg' is unknown", "vgg", [trunk], out)
    (tmp_path / "cut.safetensors").write_bytes(INCEPTION.read_bytes()[:-100])
    refused("truncated", "inception", [tmp_path / "cut.safetensors"], out)


def test_wrong_shapes(tmp_path):
    out = tmp_path / "out.safetensors"
    files = lpips_files(tmp_path, **{"features.3.squeeze.weight": (16, 64, 3, 3)})
    refused(r"wrong shape squeezenet\.features\.3\.squeeze", "lpips", files, out)
    model = syncnet_file(tmp_path, **{"netcnnaud.18.weight": (512, 256, 4, 5)})
    refused(r"wrong shape netcnnaud\.18\.weight \(512, 256, 4, 5\)", "syncnet", [model], out)


def test_values_that_are_not_numbers():
    tensors = {"w": np.full((2, 3), np.nan, np.float32)}
    with pytest.raises(UserError, match="NaN or infinity"):
        convert_weights._checked(tensors, {"w": (2, 3)}, "heads.pth")


@torch_python.needed
def test_pytorch_files(tmp_path):
    refused("needs torch", "inception", [GOLDEN / "module_zip.pth"], tmp_path / "o")
    refused("not pytorch-fid's", "inception", [GOLDEN / "nested_zip.pth"], tmp_path / "o")


def test_a_file_that_is_not_what_its_name_promises(tmp_path):
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    path.write_bytes(b"other")
    assert "its hash should begin b8a52dc0" in convert_weights._describe(path)
    digest = hashlib.sha256(b"other").hexdigest()
    path = path.rename(tmp_path / f"squeezenet1_1-{digest[:8]}.pth")
    assert convert_weights._describe(path) == f"{digest}  {path}"


def test_where_it_cannot_be_written(tmp_path):
    refused("cannot be written", "inception", [INCEPTION], tmp_path / "none" / "out")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        convert_weights.convert("inception", [INCEPTION], tmp_path / "folder")
    assert not list(tmp_path.glob(".*"))
    copy = tmp_path / "i.safetensors"
    copy.write_bytes(INCEPTION.read_bytes())
    with pytest.raises(UserError, match="is also an input"):
        convert_weights.convert("inception", [copy], copy)
    assert copy.read_bytes() == INCEPTION.read_bytes()


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "talkjax.convert_weights", *map(str, arguments)],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip


def test_the_command(tmp_path):
    out = tmp_path / "i.safetensors"
    done = command("inception", f"--out={out}", INCEPTION)
    assert done.returncode == 0 and out.is_file() and f"--fid={out}" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["inception", "--out=o"], "required: FILE; see python -m talkjax.convert_weights --help"),
        (["inception", INCEPTION], "required: --out"),
        (["vgg", INCEPTION, "--out=o"], "invalid choice: 'vgg'"),
        (["lpips", INCEPTION, "--out=o"], "lpips needs two files"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, match):
    assert commands.run_main(convert_weights.main, list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    assert match in captured.err and captured.err.count("\n") == 1 and not captured.out
