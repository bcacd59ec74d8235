"""Hostile and damaged headers of GGUF files, each refused with a sentence; nothing large is allocated for them."""

import struct

import gguf
import numpy as np
import pytest

from sparsezo_gui.engine.hub.library import summary
from sparsezo_gui.engine.pretrained.gguf.header import Texts, dense_kinds, read_gguf
from sparsezo_gui.engine.pretrained.source import inspect
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from tests import gguf_files
from tests.models import tiny

HUGE = 2**63
U32, F32, STRING, ARRAY = 4, 6, 8, 9


def text(value):
    return struct.pack("<Q", len(value)) + value


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name=b"t", shape=(32,), kind=0, offset=0, dimensions=None):
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack("<I", count) + struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)


def head(pairs=(), tensors=(), version=3, count=None, keys=None):
    counts = len(tensors) if count is None else count, len(pairs) if keys is None else keys
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)


def padded(content, data=128):
    return content + bytes(-len(content) % 32 + data)


ALIGNED = pair(b"general.alignment", U32, struct.pack("<I", 32))
CASES = {
    "no magic": (b"GGML" + bytes(100), "does not begin as a GGUF file does"),
    "empty": (b"", "is longer than the file"),
    "big-endian": (head(version=3 << 24), "big-endian"),
    "old": (head(version=1), "of version 1, but SparseZO reads versions 2 and 3"),
    "many tensors": (head(count=HUGE), "is longer than the file"),
    "many keys": (head(keys=HUGE), "is longer than the file"),
    "long key": (head([struct.pack("<Q", HUGE)]), f"claims {HUGE} bytes"),
    "long text": (head([pair(b"k", STRING, struct.pack("<Q", 2**40))]), f"claims {2**40} bytes"),
    "long token": (head([pair(b"k", ARRAY, struct.pack("<IQ", STRING, 1) + text(b"a" * 2000))]), "claims 2000 bytes"),
    "long list": (head([pair(b"k", ARRAY, struct.pack("<IQ", F32, HUGE))]), "is longer than the file"),
    "long list of texts": (head([pair(b"k", ARRAY, struct.pack("<IQ", STRING, HUGE))]), "is longer than the file"),
    "nested lists": (head([pair(b"k", ARRAY, struct.pack("<IQ", ARRAY, 1))]), "lists within lists"),
    "unknown kind": (head([pair(b"k", 77, b"")]), "a value of the unknown kind 77"),
    "no text": (head([pair(b"\xff", U32, bytes(4))]), "cannot be read"),
    "a key twice": (head([ALIGNED, ALIGNED]), "'general.alignment' twice"),
    "alignment 0": (head([pair(b"general.alignment", U32, bytes(4))]), "alignment 0 is not a power of two"),
    "alignment 3": (head([pair(b"general.alignment", U32, b"\3\0\0\0")]), "alignment 3 is not"),
    "alignment of text": (head([pair(b"general.alignment", STRING, text(b"a"))]), "alignment 'a' is not"),
    "many dimensions": (head(tensors=[tensor(dimensions=2**31)]), f"claims {2**31} dimensions"),
    "no dimension": (head(tensors=[tensor(shape=())]), "claims 0 dimensions"),
    "no numbers": (padded(head(tensors=[tensor(shape=(0,))])), "is not whole blocks"),
    "half a block": (padded(head(tensors=[tensor(shape=(16,), kind=8)])), "shape [16] is not whole blocks of Q8_0"),
    "absurd size": (padded(head(tensors=[tensor(shape=(2**40, 2**40, 2**40))])), "its tensors need"),
    "a kind of integers": (padded(head(tensors=[tensor(kind=24)])), "is in the format I8, which SparseZO cannot"),
    "no such kind": (padded(head(tensors=[tensor(kind=9999)])), "is in the format 9999"),
    "beyond the file": (padded(head(tensors=[tensor(offset=HUGE)])), "its tensors need"),
    "cut off": (padded(head(tensors=[tensor(shape=(64,))]), data=255), "its tensors need"),
    "a tensor twice": (padded(head(tensors=[tensor(), tensor(offset=128)]), 512), "the tensor 't' twice"),
    "overlap": (padded(head(tensors=[tensor(), tensor(b"u", offset=96)]), 512), "tensor 'u' overlaps another"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_header_is_refused(tmp_path, case):
    content, sentence = CASES[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_gguf(path)
    assert str(path) in str(error.value) and sentence in str(error.value)
    assert summary(str(path)).problem == str(error.value)


def test_a_sound_header(tmp_path):
    tokens = struct.pack("<IQ", STRING, 2) + text("é".encode()) + text(b"b")
    numbers = struct.pack("<IQ3f", F32, 3, 0.5, 1.0, 2.0)
    pairs = [pair(b"general.alignment", U32, b"\x40\0\0\0"), pair(b"tokens", ARRAY, tokens),
             pair(b"scores", ARRAY, numbers), pair(b"eps", F32, struct.pack("<f", 1e-5))]  # fmt: skip
    content = head(pairs, [tensor(shape=(32, 2), offset=64), tensor(b"u", shape=(4,))])
    start = -(-len(content) // 64) * 64
    path = tmp_path / "m.gguf"
    path.write_bytes(content.ljust(start + 64 + 256))
    found = read_gguf(path)
    assert (found.metadata["eps"], found.metadata["scores"].tolist()) == (1e-5, [0.5, 1, 2])
    assert isinstance(found.metadata["tokens"], Texts) and found.texts("tokens") == ["é", "b"]
    places = {name: (each.shape, each.begin, each.end) for name, each in found.tensors.items()}
    assert places == {"u": ((4,), start, start + 16), "t": ((2, 32), start + 64, start + 320)}
    path.write_bytes(content.ljust(start + 64 + 255))
    with pytest.raises(UserError, match="its tensors need"):
        read_gguf(path)


def test_everything_that_the_package_makes_dense_is_read():
    quantised = {kind.value for kind in gguf.quants._type_traits}
    assert dense_kinds() == quantised | {gguf.GGMLQuantizationType.F32.value, gguf.GGMLQuantizationType.F16.value}
    assert len(dense_kinds()) > 20


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"general.architecture": "mamba"}, "does not read GGUF files of the family 'mamba', but of llama, qwen2"),
        ({"general.architecture": "clip"}, "the image encoder of a model"),
        ({"split.count": 3}, "a part of a model. Join the parts first"),
        ({"llama.expert_count": 8}, "a mixture of experts"),
        ({"llama.block_count": 2**31 - 1}, "claims 2147483647 blocks, but has tensors of 2"),
        ({"llama.block_count": 1}, "claims 1 blocks, but has tensors of 2"),
        ({"llama.attention.head_count": None}, "'llama.attention.head_count' must be a positive number, not None"),
        ({"llama.attention.head_count": 0}, "must be a positive number, not 0"),
        ({"llama.attention.head_count": [4, 2]}, "its blocks differ in size ('llama.attention.head_count' is a list)"),
        ({"llama.attention.head_count": 3}, ""),
        ({"llama.feed_forward_length": 96}, "but config.json requires"),
        ({"llama.rope.freq_base": float("nan")}, "must be a positive number, not nan"),
        ({"llama.rope.scaling.type": "odd", "llama.rope.scaling.factor": 2.0}, "scales positions by 'odd'"),
        ({"tokenizer.ggml.model": "odd"}, "its tokenizer cannot be read"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "it has no tokens, or has one twice"),
        ({"tokenizer.ggml.tokens": None}, "it has no tokens"),
        (
            {
                "tokenizer.ggml.model": "llama",
                "tokenizer.ggml.merges": None,
                "tokenizer.ggml.tokens": [f"{i:0>1000}" for i in range(4001)],
            },
            "more than 4,000,000 characters",
        ),
    ],
)
def test_metadata_that_describe_no_model_to_tune(tmp_path, more, sentence):
    folder = tiny("llama", tmp_path / "llama")
    path = gguf_files.write(folder, tmp_path / "m.gguf", more=more)
    with pytest.raises(UserError) as error:
        inspect(path, ModelTable(id=str(path)))
    assert sentence in str(error.value) and len(str(error.value)) < 600


def test_a_tensor_without_a_place_in_the_model(tmp_path):
    folder = tiny("llama", tmp_path / "llama")
    path = gguf_files.write(folder, tmp_path / "m.gguf", tensors={"blk.0.attn_q_norm.weight": [1.0] * 16})
    with pytest.raises(UserError, match=r"its tensor 'blk\.0\.attn_q_norm\.weight' has no place in a llama model"):
        inspect(path, ModelTable(id=str(path)))


def test_weights_that_are_not_finite(tmp_path):
    from sparsezo_gui.engine import frozen
    from tests.engine.conftest import finish

    folder = tiny("llama", tmp_path / "llama")
    path = gguf_files.write(folder, tmp_path / "m.gguf", gguf.GGMLQuantizationType.Q8_0)
    stored = read_gguf(path).tensors["blk.1.ffn_up.weight"]
    content = bytearray(path.read_bytes())
    content[stored.begin : stored.begin + 2] = np.array([np.inf], np.float16).tobytes()
    path.write_bytes(content)
    for bits in (4, 32):
        with pytest.raises(UserError, match=r"m\.gguf: the weight .*up_proj.* contains NaN or infinity"):
            finish(frozen.load(ModelTable(id=str(path), bits=bits, device="cpu")))
