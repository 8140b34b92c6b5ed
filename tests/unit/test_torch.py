"""Tensors, where torch is installed. It is too large to be installed for the tests alone."""

from __future__ import annotations

from typing import Any

import pytest

from bridge_py.wire import codec
from bridge_py.wire.errors import EncodeError

torch: Any = pytest.importorskip("torch", reason="torch is not installed; pip install torch to run these")


def _round_trip(value: Any) -> Any:
    encoded = codec.encode(value, "args")
    return codec.decode(encoded.body, b"".join(encoded.buffers))


@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16", "int64", "uint8", "bool", "complex64"])
def test_tensors_of_every_layout(kind: str) -> None:
    tensor = torch.arange(30_000).reshape(100, 300).to(getattr(torch, kind))
    original = tensor.clone()
    for sent in (tensor, tensor.T, tensor[::3, 5:], tensor[0, 1], tensor[:0], tensor.conj()):
        found = _round_trip(sent)
        assert found.dtype == sent.dtype
        assert torch.equal(found, sent)
        found.zero_()  # it is our own
    assert torch.equal(tensor, original)


def test_gradients_stay_behind() -> None:
    sent = torch.nn.Parameter(torch.ones(3))
    found = _round_trip([sent])[0]
    assert torch.equal(found, sent.detach())
    assert not found.requires_grad


def test_what_is_not_in_memory_here_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"args.a: a tensor of layout torch.sparse_coo on cpu cannot be sent"):
        codec.encode({"a": torch.ones(3).to_sparse()}, "args")
    with pytest.raises(EncodeError, match=r"on meta cannot be sent; send .to_dense\(\).cpu\(\)"):
        codec.encode(torch.empty(3, device="meta"), "args")
