"""Control characters and giant texts of workers, in errors and in the log: escaped, cut, and still readable."""

from __future__ import annotations

import logging
import traceback

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import snakepit_trio as snakepit
from bridge_py.contract.statuses import error_of_status, failure_of
from bridge_py.wire.errors import Fault, error_of, fault_of
from bridge_py.wire.readable import readable
from tests.helpers.hostile import open_hostile
from tests.helpers.hostile_worker import EVIL

ESCAPED = r"a\x1b[2Jb\x07\u2028c\u202ed\x9be\x00\x0d<"


@pytest.mark.parametrize("protocol", ["lane", "channel"])
async def test_an_error_of_a_tool_is_readable(protocol: str) -> None:
    del protocol
    async with open_hostile("evil_error") as pool:
        with pytest.raises(snakepit.ToolError) as caught:
            await pool.execute("attack", timeout=20)
    error = caught.value
    assert error.message == error.type == ESCAPED
    assert error.remote_traceback == f"Traceback:\n\tline 1\n{ESCAPED}\n", "line ends and tabs stay"
    assert _is_harmless("".join(traceback.format_exception(error)))


async def test_a_giant_error_is_left_out_with_a_mark() -> None:
    async with open_hostile("giant_error") as pool:
        with pytest.raises(snakepit.ToolError, match=r"\(an error of 40000\d+ bytes, of which 1048576 are read"):
            await pool.execute("attack", timeout=20)


def test_a_long_error_is_cut_with_a_mark() -> None:
    error = error_of(Fault("tool", "m" * 100_000, "T" * 5_000, "t" * 100_000))
    assert isinstance(error, snakepit.ToolError)
    assert error.message == "m" * 40_000 + "... (100000 characters)"
    assert error.type == "T" * 1_000 + "... (5000 characters)"
    assert len(error.remote_traceback) < 41_000


def test_an_error_of_ours_arrives_as_it_is() -> None:
    try:
        raise ValueError("lines\nand\ttabs, \u00e9\u05d0\u4e2d\U0001f40d " + "x" * 19_000)
    except ValueError as raised:
        fault = fault_of(raised)
    arrived = error_of(fault)
    assert isinstance(arrived, snakepit.ToolError)
    assert (arrived.message, arrived.remote_traceback) == (fault.message, fault.traceback)


async def test_a_broken_error_frame_says_so_without_its_text() -> None:
    async with open_hostile("evil_break") as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="the body of an error frame is broken") as caught:
            await pool.execute("attack", timeout=20)
    assert str(caught.value).isprintable()


async def test_lines_in_the_log_are_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "snakepit.worker")
    async with open_hostile("evil_lines") as pool:
        await pool.execute("attack", timeout=20)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("snakepit.worker.")]
    assert sorted(said) == sorted([ESCAPED, ESCAPED, "\ufffd\ufffd tab\there"])


async def test_the_last_lines_of_a_dead_worker_are_readable_and_short() -> None:
    async with open_hostile("evil_death") as pool:
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute("attack", timeout=50)
    first, second = caught.value.stderr_tail[-2:]
    assert first == ESCAPED
    assert second == "y" * 4096 + "... (60000 characters)"
    assert _is_harmless("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize(
    "char",
    [
        *map(chr, range(0x20)),
        *map(chr, range(0x7F, 0xA0)),
        *"\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ud800\udfff",
    ],
)
def test_each_control_character_is_escaped(char: str) -> None:
    text = readable(f"a{char}b")
    assert text == f"a{char}b" if char in "\t\n" else text.isprintable()


@pytest.mark.parametrize("status", list(Status))
def test_a_status_of_the_contract_is_readable(status: Status) -> None:
    error = error_of_status(GRPCError(status, EVIL + "\ud800" + "x" * 1_000_000))
    assert _is_harmless("".join(traceback.format_exception(error)))
    assert len(str(error)) < 200_000


def test_half_a_surrogate_pair_in_an_error_can_be_written() -> None:
    error = error_of(failure_of('{"type": "A", "message": "\\ud800", "stacktrace": ["\\udfff"]}'))
    assert str(error).encode() == b"A: \\ud800"


def test_readable_text_stays() -> None:
    text = "plain, \u00e9\u05d0\u4e2d\U0001f40d\nand\ttabs"
    assert readable(text) == text
    assert readable("one\r\ntwo") == "one\ntwo"
    assert readable(readable(EVIL)) == readable(EVIL) == ESCAPED


def _is_harmless(text: str) -> bool:
    return all(line.replace("\t", "").isprintable() for line in text.split("\n"))
