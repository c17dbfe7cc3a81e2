"""Weight files are read without running anything in them."""

import os
import pickle
import random
import zipfile
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pixclip.importers import WeightsRefused
from pixclip.importers.source import read_settings, read_source
from tests.mutations import mutated


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class Small(nn.Module):
    """Something like a traced CLIP: nested modules, half precision, a number beside the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Linear(2, 3).half(), nn.LayerNorm(3))
        self.shared = self.visual[1].weight
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("row", torch.arange(6.0).reshape(2, 3).T)

    def forward(self, x):
        return self.visual[0](x)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_is_read_from_either_form_of_torch_archive(legacy, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    assert torch.equal(read_source(tmp_path / "w.pt").tensors["a"], torch.ones(2))


@pytest.mark.parametrize("container", ["state_dict", "model", "module"])
def test_weights_are_found_among_other_things_which_are_named(container, tmp_path):
    torch.save({"epoch": 3, container: {"module.a": torch.ones(2)}}, tmp_path / "w.pth")
    source = read_source(tmp_path / "w.pth")
    assert set(source.tensors) == {"a"}
    assert set(source.ignored) == {"epoch"}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(legacy, tmp_path):
    content = {"a": torch.ones(1), "b": Bomb(tmp_path / "boom")}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsRefused, match="code in it is never run"):
        read_source(tmp_path / "w.pt")
    assert not (tmp_path / "boom").exists()


def test_values_that_are_no_tensors_are_refused(tmp_path):
    torch.save({"a": torch.ones(1), "lr": 0.1}, tmp_path / "w.pt")
    with pytest.raises(WeightsRefused, match="lr: float"):
        read_source(tmp_path / "w.pt")


def test_tensors_without_names_are_refused(tmp_path):
    torch.save({0: torch.ones(1), 1: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsRefused, match=r"no tensor with a name.*\n.*0: Tensor"):
        read_source(tmp_path / "w.pt")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.pt", torch.save),
        ("w.safetensors", save_file),
        ("legacy.pt", partial(torch.save, _use_new_zipfile_serialization=False)),
    ],
)
def test_a_file_that_ends_too_early_is_called_cut_off(name, save, share, tmp_path):
    save({f"a{i}": torch.ones(1000) for i in range(9)}, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsRefused, match=f"{name} is cut off:.*fetch it again, to its end"):
        read_source(tmp_path / name)


def test_a_folder_must_hold_one_weight_file_and_safetensors_win(tmp_path):
    with pytest.raises(WeightsRefused, match="must hold one weight file"):
        read_source(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert read_source(tmp_path).file.name == "model.safetensors"
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsRefused, match="not 3"):
        read_source(tmp_path)


def test_nothing_at_the_place_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_source(tmp_path / "w.pt")


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_a_torchscript_archive_gives_its_state_dict(kind, tmp_path):
    model = Small()
    model.visual[0].weight.data = torch.randn(3, 2).half()
    script = (
        torch.jit.script(model)
        if kind == "scripted"
        else torch.jit.trace(model, torch.zeros(1, 2).half())
    )
    torch.jit.save(script, tmp_path / "clip.pt")
    tensors = read_source(tmp_path / "clip.pt").tensors
    expected = script.state_dict()
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_a_torchscript_archive_with_a_foreign_name_is_refused_and_runs_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "clip.pt", "w") as archive:
        archive.writestr("clip/constants.pkl", pickle.dumps(()))
        archive.writestr("clip/data.pkl", pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(WeightsRefused, match=r"the name \w+.mkdir"):
        read_source(tmp_path / "clip.pt")
    assert not (tmp_path / "boom").exists()


def test_a_torchscript_archive_that_leads_around_is_refused(tmp_path):
    around = b"c__torch__\nAround\n)\x81q\x00}X\x02\x00\x00\x00meh\x00sb."
    with zipfile.ZipFile(tmp_path / "clip.pt", "w") as archive:
        archive.writestr("clip/constants.pkl", pickle.dumps(()))
        archive.writestr("clip/data.pkl", around)
    with pytest.raises(WeightsRefused, match="RecursionError"):
        read_source(tmp_path / "clip.pt")


def test_a_compressed_storage_is_refused_before_it_is_unpacked(tmp_path):
    torch.jit.save(torch.jit.script(Small()), tmp_path / "clip.pt")
    with (
        zipfile.ZipFile(tmp_path / "clip.pt") as source,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in source.infolist():
            bomb.writestr(member.filename, source.read(member))
    with pytest.raises(WeightsRefused, match="is compressed"):
        read_source(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty.*fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "not its page(.|\n)*a web page"),
        (b"\xef\xbb\xbf<html><body>Sign in</body></html>", "not its page(.|\n)*a web page"),
        (b"<!-- moved -->\n<html></html>", "not its page(.|\n)*a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a server's error"),
        (b'{"model_cfg": {}}', "give the weights themselves(.|\n)*it is JSON"),
        (b"  \n", r"is empty(.|\n)*3 bytes"),
        (b'{"error": "Access to model is restricted"}', "with access to it"),
        (b"\x10" + bytes(7) + b'{"a": 1}        ', "damaged: fetch it again"),
        (b"\xff" * 8 + b"{}", "damaged: fetch it again"),
    ],
)
def test_what_lies_where_weights_should_be_is_told_with_what_to_do(content, message, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsRefused, match=message) as told:
        read_source(tmp_path)
    assert "model.safetensors" in str(told.value)


def test_more_entries_than_any_model_has_are_refused(tmp_path):
    torch.save(dict.fromkeys(map(str, range(100_001)), 0), tmp_path / "w.pt")
    with pytest.raises(WeightsRefused, match="holds 100001 entries"):
        read_source(tmp_path / "w.pt")


def test_weights_that_ask_for_more_than_the_memory_are_refused(tmp_path, monkeypatch):
    def no_memory(*_arguments, **_options):
        raise MemoryError

    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    monkeypatch.setattr("pixclip.importers.source.load_file", no_memory)
    with pytest.raises(WeightsRefused, match="more memory than there is"):
        read_source(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"[" * 5000, b"\xff", b'{"a": 1, "a": 2}', b"null"])
def test_a_description_that_cannot_be_read_is_refused_by_name(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(WeightsRefused, match=r"config\.json is not the description of a model"):
        read_settings(tmp_path, "config.json")


def writers():
    weights = {"a.b": torch.ones(3, 4), "c": torch.zeros(2).half()}
    return {
        "w.safetensors": lambda path: save_file(weights, path),
        "w.pt": lambda path: torch.save(weights, path),
        "legacy.pth": lambda path: torch.save(weights, path, _use_new_zipfile_serialization=False),
        "script.pt": lambda path: torch.jit.save(torch.jit.script(Small()), path),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", writers())
def test_damaged_weights_of_any_form_are_refused_by_name_and_never_anything_else(name, tmp_path):
    """Bits flipped, numbers changed, parts lost and repeated: 300 files of each form."""
    draw, path, outcomes = random.Random(0), tmp_path / name, set()
    writers()[name](path)
    whole = path.read_bytes()
    for _ in range(300):
        path.write_bytes(mutated(whole, draw))
        try:
            read_source(path)
            outcomes.add("read")
        except WeightsRefused as error:
            is_told = name in str(error) and len(str(error)) < 4000
            outcomes.add("refused" if is_told else str(error))
    assert outcomes == {"read", "refused"}
