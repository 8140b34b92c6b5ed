"""The debugger of a worker: pdb, on the terminal of the host.

It holds the terminal from a breakpoint until `continue`, `quit`, or the end of the call. A breakpoint that was set with
`b` takes it again. It sees the frames of the tool alone: it ends when the code of the call has ended, so it never
steps into our own code, or into the next call.
"""

from __future__ import annotations

import bdb
import inspect
import os
import pdb
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Final

from bridge_py.wire.errors import DebuggerQuit, ToolCancelled, UsageError

from .host_terminal import HostTerminal
from .tool_call import ToolCall

__uninterruptible__ = True  # the host ends the input of a prompt whose call is cancelled
_OURS: Final = ("execution", "tools", "link", "host", "wire", "buffers")
_SKIPPED: Final = (*(f"bridge_py.{room}" for room in _OURS), "asyncio", "concurrent", "threading")
_RUNNERS: Final = ("_run_sync", "_run_async")  # functions of the executor: each runs one call, from begin to end
_EXECUTOR: Final = "bridge_py.execution.executor"
_SUSPENDABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Debuggers:
    """Opens the debugger in this worker. `control` is the socket by which the host lends its terminal."""

    def __init__(self, control: socket.socket) -> None:
        control.set_inheritable(False)  # for the programs that tools start
        self.terminal = HostTerminal(control)
        self.current: Debugger | None = None  # the one that has the terminal
        self._pid = os.getpid()
        # Ctrl-C at the prompt. Only the main thread gets signals, so it does nothing to tools in other threads.
        signal.signal(signal.SIGINT, self._interrupted)

    def breakpoint(self, *, header: str | None = None) -> None:
        """Open the debugger where `breakpoint()` was called. Raises `UsageError` if the host has no terminal."""
        if os.getpid() != self._pid:
            raise UsageError("breakpoint() works in the worker's own process, and not in one that a tool has forked")
        frame = sys._getframe(1)
        while frame.f_globals.get("__name__") == f"{__package__}.breakpoints" and frame.f_back is not None:
            frame = frame.f_back
        if self.current is not None and self.current.is_at_prompt_here:
            self.current.message("breakpoint() does nothing in what the debugger itself runs")
            return
        debugger = Debugger(self, frame)
        debugger.hold(frame)
        if header is not None:
            debugger.message(header)
        debugger.set_trace(frame)

    def post_mortem(self, call: ToolCall, error: BaseException) -> None:
        """Open the debugger where a call has raised; returns when the user leaves it. Raises nothing."""
        traceback = error.__traceback__
        while traceback is not None and _is_ours(traceback.tb_frame):
            traceback = traceback.tb_next
        if traceback is None or isinstance(error, DebuggerQuit) or call.cancelled or os.getpid() != self._pid:
            return
        debugger = Debugger(self, None, call)
        try:
            debugger.examine(error, traceback)
        except (Exception, ToolCancelled) as problem:  # there is no terminal, or it has gone
            print(f"no post-mortem: {problem}", file=sys.stderr)

    def _interrupted(self, _signum: int, frame: FrameType | None) -> None:
        debugger = self.current
        if debugger is not None and debugger.thread == threading.get_ident() and debugger.may_interrupt(frame):
            raise KeyboardInterrupt


class Debugger(pdb.Pdb):
    """One visit of pdb. `frame` is where it opens; None after the code has ended."""

    def __init__(self, debuggers: Debuggers, frame: FrameType | None, call: ToolCall | None = None) -> None:
        super().__init__(nosigint=True, skip=[pattern for name in _SKIPPED for pattern in (name, f"{name}.*")])
        self.thread = threading.get_ident()
        self._debuggers = debuggers
        self._terminal = debuggers.terminal
        self._runner = next((each for each in _frames(frame) if _is_runner(each)), None)
        self._call: ToolCall | None = call if self._runner is None else self._runner.f_locals.get("call")
        self._outermost = frame
        self._holds = self._leaves = self._is_raising = self._is_at_prompt = False
        self._held_since = 0.0

    def hold(self, frame: FrameType | None) -> None:
        """Have the terminal, if it does not yet. Raises `UsageError`, and `ToolCancelled` if the call is cancelled."""
        if self._holds:
            return
        before = self._debuggers.current
        if before is not None and before.thread == self.thread:
            before.give_way()
        self._held_since = self._clock()
        try:
            self._terminal.borrow(0 if self._call is None else self._call.id, _place(frame))
        except UsageError as problem:
            raise self._end_of_call(problem) from None
        finally:
            self._shift_deadline()
        self._held_since = self._clock()
        self._holds, self._leaves = True, False
        assert self._terminal.input is not None
        assert self._terminal.output is not None
        self.stdin, self.stdout = self._terminal.input, self._terminal.output
        self._debuggers.current = self

    def leave(self) -> None:
        """Give the terminal back, if it has it."""
        if self._holds:
            self._holds = False
            self._debuggers.current = None
            self._shift_deadline()
            self._terminal.give_back()

    def give_way(self) -> None:
        """Let another debugger of this thread have the terminal: code that was stepped over has reached a breakpoint.

        This code goes on as by `continue`.
        """
        self.set_continue()
        self.leave()

    @property
    def is_at_prompt_here(self) -> bool:
        """Whether this thread carries out a command of the user's."""
        return self._is_at_prompt and self.thread == threading.get_ident()

    def _clock(self) -> float:
        host = None if self._call is None or self._call.context is None else self._call.context._host
        return time.monotonic() if host is None else host.clock()

    def _shift_deadline(self) -> None:
        # The time at the prompt does not count. The host shifts its own deadlines.
        context = None if self._call is None else self._call.context
        if context is not None and context.deadline is not None:
            context.deadline += self._clock() - self._held_since

    # Where it stops.

    def set_trace(self, frame: FrameType | None = None, **more: Any) -> None:
        """Stop in a frame, at the next line."""
        super().set_trace(frame, **more)
        chain = list(_frames(frame))
        if self._runner is not None:
            chain = chain[: chain.index(self._runner)]
        outermost = next((each for each in reversed(chain) if not _is_ours(each)), frame)
        for each in chain[chain.index(outermost) + 1 :] if outermost in chain else ():
            each.f_trace = None
        for each in _frames(self._runner):
            each.f_trace = None
        if self._runner is not None:
            self._runner.f_trace = self._trace_runner
        self.botframe = self._outermost = outermost

    def _trace_runner(self, _frame: FrameType, event: str, _arg: object) -> Any:
        # A coroutine that waits "returns", and is "called" again when it goes on. Only a new line, or an exception,
        # shows that the code of the call is over.
        if event in ("line", "exception"):
            self._end()
            return None
        return self._trace_runner

    def _end(self) -> None:
        if getattr(sys.gettrace(), "__self__", None) is self:  # and not another debugger of this thread
            sys.settrace(None)
        self.leave()

    def stop_here(self, frame: FrameType) -> bool:
        """Whether steps stop in a frame: not in those of the event loop, nor in other tasks."""
        return super().stop_here(frame) and (self._runner is None or self._is_in_call(frame))

    def _is_in_call(self, frame: FrameType | None) -> bool:
        return any(each is self._runner for each in _frames(frame))

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Handle an event of the code. Raises `DebuggerQuit` after `quit`, and `ToolCancelled`."""
        try:
            trace = super().trace_dispatch(frame, event, arg)
        except bdb.BdbQuit:
            self._end()
            error = DebuggerQuit("the debugger was left with `quit`, which ends the call")
            raise self._end_of_call(error) from None
        except BaseException:
            self._end()
            raise
        if self._runner is None and frame is self._outermost and self._is_over(frame, event):
            self._end()
        return trace

    def _is_over(self, frame: FrameType, event: str) -> bool:
        """Whether the outermost frame has ended, of code that no call runs: a thread, or a task of its own."""
        if event != "return":
            self._is_raising = event == "exception"
            return False
        if not frame.f_code.co_flags & _SUSPENDABLE or self._is_raising:
            return True
        return frame.f_lasti < 0 or _opcode(frame) != "YIELD_VALUE"

    # The prompt.

    def interaction(self, frame: FrameType | None, traceback: Any) -> None:
        """Let the user give commands until the code is to go on."""
        self.hold(frame)
        try:
            with self._terminal.in_place():
                super().interaction(frame, traceback)
        except OSError as error:  # the host has closed its end
            self._end()
            raise self._end_of_call(DebuggerQuit(f"the debugger has lost its terminal: {error}")) from None
        except BaseException:
            self._end()
            raise
        if self._leaves:
            self.leave()

    def cmdloop(self, intro: Any = None) -> None:
        """Read and carry out commands."""
        self._is_at_prompt = True
        try:
            super().cmdloop(intro)
        finally:
            self._is_at_prompt = False

    def message(self, msg: str, *args: Any) -> None:
        """Print a line on the terminal."""
        self.hold(None)
        try:
            super().message(msg, *args)
        except OSError as error:
            self._end()
            raise self._end_of_call(DebuggerQuit(f"the debugger has lost its terminal: {error}")) from None

    def examine(self, error: BaseException, traceback: TracebackType) -> None:
        """Let the user look at the frames of an exception."""
        self.hold(traceback.tb_frame)
        try:
            self.reset()
            self.message(f"{type(error).__name__}: {error}")
            self.interaction(None, traceback)
        finally:
            self.leave()

    def may_interrupt(self, frame: FrameType | None) -> bool:
        """Whether a KeyboardInterrupt may be raised in a frame: at the prompt, or in the code of the call."""
        if not self._holds:
            return False
        if self._is_at_prompt:
            return True
        return frame is not None and not _is_ours(frame) and self._is_in_call(frame)

    def _end_of_call(self, otherwise: Exception) -> BaseException:
        """The exception that ends the call: that of a cancelled one, if it is."""
        if self._call is None or not self._call.cancelled:
            return otherwise
        self._call.interrupted = True  # nothing else is raised in its code
        return ToolCancelled()

    def set_continue(self) -> None:
        """Go on, and stop at breakpoints only."""
        self._leaves = True
        super().set_continue()

    def set_quit(self) -> None:
        """End the call."""
        self._leaves = True
        super().set_quit()

    def do_run(self, arg: str) -> None:  # noqa: ARG002 - pdb's signature
        """Refuse to run the code once more: only the host can."""
        self.error("a call cannot be run again from here: `c` goes on, `q` ends it")

    do_restart = do_run


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and all those around it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_runner(frame: FrameType) -> bool:
    return frame.f_code.co_name in _RUNNERS and frame.f_globals.get("__name__") == _EXECUTOR


def _is_ours(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__"))
    return any(name == each or name.startswith(f"{each}.") for each in _SKIPPED)


def _opcode(frame: FrameType) -> str:
    import opcode

    return opcode.opname[frame.f_code.co_code[frame.f_lasti]]


def _place(frame: FrameType | None) -> str:
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
