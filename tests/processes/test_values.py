"""Values through real workers: every kind, large ones in shared memory and over the link, and crashes at every step."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import psutil
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.buffers.compression import compress, decompress
from bridge_py.buffers.shared_memory import Mappings, Segments
from bridge_py.wire import arrays, codec
from tests.helpers.value_tools import Box, Celsius, Color, Point, Sample, Unreadable

VALUES = "tests.helpers.value_tools:ValueTools"
ON_THE_LINK = {"shared_memory": 0}
COMPRESSED = {**ON_THE_LINK, "compress_from": 1}
WAYS = pytest.mark.parametrize("config", [{}, ON_THE_LINK], ids=["shared", "link"])
ALL_WAYS = pytest.mark.parametrize("config", [{}, ON_THE_LINK, COMPRESSED], ids=["shared", "link", "zstd"])
# Inside the message, attached to the frame, lent, lent and more than a window of pieces, more than a step of a copy.
SIZES = [5_000, 20_000, 70_000, 1_000_001, 17_000_000]


def _shared_segments(pid: int | str = "self") -> int:
    """How many pieces of our shared memory a process has mapped or open."""
    found = Path(f"/proc/{pid}/maps").read_text().splitlines()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return sum("memfd:snakepit-" in each and "memfd:snakepit-ledger" not in each for each in found)


def _shared_memory(ours: set[int] | None = None) -> int:
    """Bytes of shared memory that this process and its descendants hold, by descriptors and mappings.

    `ours` collects their ids, so that those are looked at too whose parents have died.
    """
    ours = set() if ours is None else ours
    ours.update([os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))])
    held: dict[int, int] = {}
    for pid in ours:
        with contextlib.suppress(OSError):
            held |= _segments_of(pid)
    return sum(held.values())


def _segments_of(pid: int) -> dict[int, int]:
    """The sizes of the segments that a process holds, by inode."""
    held = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "/memfd:snakepit-" in line:
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            held[int(line.split()[4])] = end - start
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(entry.path).startswith("/memfd:snakepit-"):
                found = os.stat(entry.path)
                held[found.st_ino] = found.st_size
    return held


@ALL_WAYS
@pytest.mark.parametrize("size", SIZES)
async def test_arrays_of_every_size(size: int, config: dict[str, Any]) -> None:
    sent = np.arange(size, dtype=np.uint64).astype(np.uint8)
    async with snakepit.open_pool(VALUES, workers=1, **config) as pool:
        for _ in range(3):
            assert np.array_equal(await pool.execute("make", {"size": size}), sent)
            assert await pool.execute("total", {"array": sent}) == sent.sum()
            found = await pool.execute("echo", {"value": {"a": sent, "b": [sent[::2], b"x" * size]}})
        assert np.array_equal(found["a"], sent)
        assert np.array_equal(found["b"][0], sent[::2])
        assert found["b"][1] == b"x" * size
        assert not found["a"].flags.writeable
        assert await pool.execute("is_writeable", {"array": sent}) is False


@WAYS
async def test_a_stream_of_arrays_arrives_in_order(config: dict[str, Any]) -> None:
    async with snakepit.open_pool(VALUES, workers=1, **config) as pool:
        async with pool.stream("makes", {"size": 200_000, "count": 150}) as chunks:
            numbers = [int(chunk[-1]) async for chunk in chunks]
        assert numbers == list(range(150))
        async with pool.stream("makes", {"size": 200_000, "count": 10_000_000}) as chunks:
            assert (await anext(chunks))[0] == 0
        assert await pool.execute("echo", {"value": 1}) == 1
        assert pool.get_stats().restarts == 0


async def test_hints_make_objects() -> None:
    async with snakepit.open_pool(VALUES, workers=1) as pool:
        args = {
            "color": Color.RED,
            "box": Box(Point(1, 2), Point(3, 4)),
            "sample": Sample("s", np.zeros(3)),
            "path": Path("/tmp"),
            "price": Decimal("1.10"),
            "ids": {1, 2},
        }
        kinds = await pool.execute("hinted", args)
        assert kinds == ["Color", "Box", "Point", "Sample", "PosixPath", "Decimal", "set"]
        # Without a hint they are what they consist of.
        assert await pool.execute("echo", {"value": args["box"]}) == {"low": {"x": 1, "y": 2}, "high": {"x": 3, "y": 4}}
        with pytest.raises(snakepit.InvalidArguments, match=r"'box' does not fit.*box.low.x") as caught:
            await pool.execute("hinted", args | {"box": {"low": {"x": "a", "y": 1}, "high": {"x": 1, "y": 1}}})
        assert caught.value.parameter == "box"
        with pytest.raises(snakepit.InvalidArguments, match=r"Expected `numpy.ndarray`, got `list`"):
            await pool.execute("total", {"array": [1, 2]})


async def test_codecs_of_an_applications_own() -> None:
    async with snakepit.open_pool(VALUES, workers=1) as pool:
        hottest = await pool.execute("hottest", {"values": [Celsius(1), Celsius(30), Celsius(20)]})
        assert (type(hottest), hottest.degrees) == (Celsius, 30)

        class Unknown:
            pass

        snakepit.register_codec(Unknown, "only here", lambda _value: 1, lambda _value: Unknown())
        with pytest.raises(snakepit.CodecError, match="no codec 'only here' here: register it on both sides"):
            await pool.execute("echo", {"value": Unknown()})
        snakepit.register_codec(Unknown, "only here", lambda _value: 1 / 0, lambda _value: Unknown())
        with pytest.raises(snakepit.EncodeError, match=r"echo: args.value\[0\]: its codec 'only here' raised ZeroDiv"):
            await pool.execute("echo", {"value": [Unknown()]})
        with pytest.raises(snakepit.UsageError, match="'celsius' is Celsius's; choose another tag for .*Unknown"):
            snakepit.register_codec(Unknown, "celsius", lambda _value: 1, lambda _value: Unknown())
        assert pool.get_stats().restarts == 0


async def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with snakepit.open_pool(VALUES, workers=1) as pool:
        frame = pd.DataFrame({"a": [1]})
        assert (await pool.execute("echo", {"value": frame})).equals(frame)
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(snakepit.EncodeError, match="args.value: .* install pyarrow on both sides"):
            await pool.execute("echo", {"value": frame})
        monkeypatch.undo()
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(snakepit.CodecError, match="a value of pandas has come, and pandas cannot be imported here"):
            await pool.execute("echo", {"value": frame})
        monkeypatch.undo()
        await pool.execute("forget_numpy")
        with pytest.raises(snakepit.CodecError, match="numpy cannot be imported here"):
            await pool.execute("echo", {"value": np.zeros(3)})
        assert pool.get_stats().restarts == 0


async def test_what_cannot_be_decoded_fails_its_call_and_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_decoder: Any, _payload: Any) -> Any:
        raise OverflowError("out of bounds")

    async with snakepit.open_pool(VALUES, workers=1) as pool:
        with monkeypatch.context() as patch:
            patch.setitem(arrays.DECODERS, 16, broken)
            with pytest.raises(snakepit.DecodeError, match=r"'echo' sent .*: \.a\[0\] is no numpy value: Overflow"):
                await pool.execute("echo", {"value": {"a": [np.zeros(3)]}})
            async with pool.stream("makes", {"size": 3, "count": 9}) as chunks:
                with pytest.raises(snakepit.DecodeError, match="'makes' sent back .* is no numpy value"):
                    await anext(chunks)
        assert (await pool.execute("echo", {"value": np.zeros(3)})).shape == (3,)
        assert pool.get_stats().restarts == 0


class PanicException(BaseException):
    """What Rust's panics become."""


def test_a_panic_of_polars_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_args: Any, **_kwargs: Any) -> Any:
        raise PanicException("called `Option::unwrap()`")

    frame = pl.DataFrame({"a": [1]})
    encoded = codec.encode([frame])
    monkeypatch.setattr(pl, "read_ipc_stream", panic)
    with pytest.raises(snakepit.DecodeError, match=r"\[0\] is no table: ValueError: polars panicked: called"):
        codec.decode(encoded.body)
    with pytest.raises(snakepit.EncodeError, match=r"value\[0\]: .* polars panicked"):
        codec.encode([frame])


async def test_what_a_worker_cannot_decode_fails_its_call_and_no_worker() -> None:
    def give() -> Any:
        return [Unreadable()]

    async with snakepit.open_pool(VALUES, workers=1) as pool:
        pool.expose(give)
        with pytest.raises(snakepit.CodecError, match=r"\[0\] is no object with a codec: the codec .* raised"):
            await pool.execute("ask", {"name": "give"})
        with pytest.raises(snakepit.CodecError, match=r"echo: \.value\[1\] is no .*: the codec 'unreadable' raised"):
            await pool.execute("echo", {"value": [1, Unreadable()]})
        assert pool.get_stats().restarts == 0


async def test_shared_memory_is_given_back_when_nobody_refers_to_it() -> None:
    async with snakepit.open_pool(VALUES, workers=1) as pool:
        worker = pool.list_workers()[0].pid
        assert worker is not None
        results = [await pool.execute("make", {"size": 1_000_000}) for _ in range(100)]
        assert _shared_segments() >= 100  # mapped by us
        assert await pool.execute("descriptors") < 50
        assert len(os.listdir("/proc/self/fd")) < 100
        assert all(np.array_equal(result, results[0]) for result in results)
        del results
        await pool.execute("echo", {"value": 1})
        assert _shared_segments() <= 16  # kept for the next results
        assert _shared_segments(worker) <= 3 * 16
        for _ in range(10):
            await pool.execute("hold", {"array": np.zeros(100_000)})
        assert _shared_segments(worker) >= 10
        await pool.execute("let_go")


async def test_what_a_worker_may_hold_is_bounded() -> None:
    async with snakepit.open_pool(VALUES, workers=1, shared_memory=3_000_000) as pool:
        array = np.ones(1_000_000, np.uint8)
        for _ in range(5):
            await pool.execute("hold", {"array": array})
        memory = await pool.execute("memory")
        assert 3_000_000 <= memory["RssShmem"] < 3_500_000
        results = [await pool.execute("make", {"size": 1_000_000}) for _ in range(6)]
        assert _shared_segments() <= 3 + 16
        assert all(result[-1] == results[0][-1] for result in results)
        await pool.execute("let_go")
        await pool.execute("hold", {"array": array})
        assert pool.get_stats().restarts == 0


async def test_a_gigabyte_costs_one_copy() -> None:
    size = 1_000_000_000
    array = np.empty(size, np.uint8)
    array[:: 1 << 12] = 1
    async with snakepit.open_pool(VALUES, workers=1) as pool:
        await pool.execute("total", {"array": array[:100_000]})
        before = await pool.execute("memory")
        own = _anonymous_memory()
        assert await pool.execute("hold", {"array": array}, timeout=120) == 1
        after = await pool.execute("memory")
        assert after["RssAnon"] - before["RssAnon"] < 50_000_000
        assert after["RssShmem"] - before["RssShmem"] < size + 50_000_000
        assert _anonymous_memory() - own < 50_000_000


def _anonymous_memory() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


@WAYS
async def test_a_call_with_an_array_runs_again_on_another_worker(config: dict[str, Any], log: Path) -> None:
    async with snakepit.open_pool(VALUES, workers=2, **config) as pool:
        array = np.ones(2_000_000, np.uint8)
        assert await pool.execute("die_once_with", {"array": array, "path": str(log)}) == array.sum()
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("die_with", {"array": array})


@WAYS
@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.003, 0.01, 0.03, 0.1])
async def test_killing_a_worker_at_any_step_leaves_nothing(config: dict[str, Any], seconds: float) -> None:
    before = _shared_memory()
    async with snakepit.open_pool(VALUES, workers=1, **config) as pool:
        array = np.ones(10_000_000 if config else 60_000_000, np.uint8)
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_allow_crash, pool, array)
                await trio.sleep(seconds)
                for worker in pool.list_workers():
                    if worker.pid:
                        os.kill(worker.pid, signal.SIGKILL)
            await pool.await_ready(30)
        del array
        assert await pool.execute("total", {"array": np.ones(100_000)}) == 100_000
    assert _shared_segments() == 0
    assert _shared_memory() <= before


async def _allow_crash(pool: snakepit.Pool, array: Any) -> None:
    try:
        assert (await pool.execute("echo", {"value": array}))[-1] == 1
    except snakepit.WorkerCrashed:
        return


@WAYS
@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.01, 0.05])
async def test_cancelling_at_any_step_leaves_nothing(config: dict[str, Any], seconds: float, log: Path) -> None:
    before = _shared_memory()
    array = np.ones(10_000_000 if config else 60_000_000, np.uint8)
    async with snakepit.open_pool(VALUES, workers=1, **config) as pool:
        for _ in range(4):
            with trio.move_on_after(seconds):
                await pool.execute("echo", {"value": array})
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute("wait_with", {"array": array, "path": str(log)}, timeout=seconds)
        assert await pool.execute("total", {"array": np.ones(100_000)}) == 100_000
    assert _shared_segments() == 0
    assert _shared_memory() <= before


async def test_many_callers_with_large_arguments_make_few_copies() -> None:
    before = _shared_memory()
    array = np.ones(20_000_000, np.uint8)
    peak = 0
    async with snakepit.open_pool(VALUES, workers=2) as pool, trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(pool.execute, "total", {"array": array})
        while pool.get_stats().succeeded < 40:
            peak = max(peak, _shared_memory() - before)
            await trio.sleep(0.002)
    assert peak < 15 * array.nbytes  # those under way, and what is kept for the next calls


@pytest.mark.parametrize("config", [{"concurrency": 2}, {"concurrency": 2, **ON_THE_LINK}], ids=["shared", "link"])
async def test_small_calls_go_on_beside_a_large_transfer(config: dict[str, Any]) -> None:
    async with snakepit.open_pool(VALUES, workers=1, **config) as pool:
        small = 0
        async with trio.open_nursery() as nursery:

            async def transfer() -> None:
                await pool.execute("total", {"array": np.ones(100_000_000, np.uint8)}, timeout=60)
                nursery.cancel_scope.cancel()

            nursery.start_soon(transfer)
            while True:
                await pool.execute("echo", {"value": small})
                small += 1
        assert small > 5


async def test_a_host_that_is_killed_leaves_no_shared_memory(tmp_path: Path) -> None:
    ours: set[int] = set()
    ready = tmp_path / "ready"
    script = (
        "import sys, trio, numpy as np, snakepit_trio as s\n"
        "async def main():\n"
        f"    async with s.open_pool({VALUES!r}, workers=1) as pool:\n"
        "        held = [await pool.execute('make', {'size': 50_000_000})]\n"
        "        array = np.ones(60_000_000, np.uint8)\n"
        f"        await pool.execute('wait_with', {{'array': array, 'path': {str(ready)!r}}}, timeout=60)\n"
        "trio.run(main)\n"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-c", script], stdin=None)
    with trio.fail_after(30):
        while not ready.exists():
            await trio.sleep(0.01)
        assert _shared_memory(ours) > 100_000_000
        process.kill()
        await process.wait()
        while _shared_memory(ours):
            await trio.sleep(0.01)


async def test_shared_memory_of_somebody_else_is_not_opened() -> None:
    segments, mappings = Segments(), Mappings()
    segment = segments.get(100)
    assert list(segment.write([b"x" * 100])) == []
    with pytest.raises(OSError, match=r"is '/memfd:snakepit-.* of 100 bytes, not 'snakepit-other-1'"):
        mappings.open(os.getpid(), segment.descriptor, "snakepit-other-1", 100, lambda: None)
    with pytest.raises(OSError, match="is '/dev/null"):
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            mappings.open(os.getpid(), null, segment.name, 100, lambda: None)
        finally:
            os.close(null)
    with pytest.raises(OSError, match="is"):
        mappings.open(os.getpid(), segment.descriptor, segment.name, 101, lambda: None)
    unmapped: list[int] = []
    view = mappings.open(os.getpid(), segment.descriptor, segment.name, 100, lambda: unmapped.append(1))
    assert view[50:] == b"x" * 50
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1
    del view
    assert unmapped == [1]
    mappings.close()
    assert _shared_segments() == 1  # our own descriptor
    segment.release()
    segments.close()


def test_a_compressed_piece_that_lies_is_a_protocol_error() -> None:
    piece = compress(bytes(1000))
    assert piece is not None
    assert len(piece) < 100
    assert decompress(piece, 1000) == bytes(1000)
    assert compress(os.urandom(1000)) is None
    for data, size in [(piece, 999), (piece, 10**9), (piece[:-1], 1000), (b"", 5), (b"junk", 4)]:
        with pytest.raises(snakepit.ProtocolError, match="a compressed piece"):
            decompress(data, size)
