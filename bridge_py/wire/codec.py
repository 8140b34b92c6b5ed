"""Values to bytes and back: MessagePack through msgspec."""

from __future__ import annotations

from typing import Any

import msgspec

from .errors import DecodeError, EncodeError, Fault


def _refuse(value: object) -> Any:
    raise NotImplementedError(f"{type(value).__module__}.{type(value).__qualname__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_refuse)
_decode = msgspec.msgpack.Decoder().decode
_decode_fault = msgspec.msgpack.Decoder(Fault).decode


def encode(value: Any, what: str = "value") -> bytes:
    """Encode a value; `what` names it in the message of the `EncodeError` if it cannot be sent."""
    try:
        return _encoder.encode(value)
    except NotImplementedError as error:
        raise EncodeError(
            f"{what} holds an object of type {error}, which cannot be sent; "
            "send plain values (numbers, text, bytes, lists, dicts, dates, dataclasses)"
        ) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(f"{what} cannot be sent: {error}") from None


def decode(data: bytes) -> Any:
    """Decode what `encode` wrote. Raises `DecodeError`."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DecodeError(f"{len(data)} bytes are not a MessagePack value: {error}") from None


def decode_fault(data: bytes) -> Fault:
    """Decode the body of an error frame. Raises `DecodeError`."""
    try:
        return _decode_fault(data)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise DecodeError(f"the body of an error frame is broken: {error}") from None
