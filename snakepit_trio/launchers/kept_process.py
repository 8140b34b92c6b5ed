"""The host's side of a keeper: it starts one worker process, watches it, and ends it."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import Final, Self

import trio

from snakepit_trio._processes.children import Child
from snakepit_trio._processes.guardian import WORKER_VARIABLE, alive, kill, pids_of, start_ticks, with_descendants
from snakepit_trio._processes.keeper import is_keeper
from snakepit_trio._util.log import get_logger

from .place import Place

_PASS: Final = 0.01  # seconds between two looks for processes
_LONGEST: Final = 2.0

logger = get_logger("snakepit.processes")


class Pipes:
    """The pipes of a worker.

    The host's ends are streams. The worker's ends are descriptors, which the host holds until the worker has them.
    """

    def __init__(self, *, with_stdin: bool) -> None:
        self.given: list[int] = []
        self._ours: list[trio.lowlevel.FdStream] = []
        try:
            self.stdin = self._make(to_worker=True) if with_stdin else None
            self.stdout = self._make(to_worker=False)
            self.stderr = self._make(to_worker=False)
        except BaseException:
            self.give()
            self.close()
            raise

    def _make(self, *, to_worker: bool) -> trio.lowlevel.FdStream:
        reading, writing = os.pipe()
        ours, theirs = (writing, reading) if to_worker else (reading, writing)
        self.given.append(theirs)
        self._ours.append(trio.lowlevel.FdStream(ours))
        return self._ours[-1]

    def give(self) -> None:
        """Close the host's copies of the worker's ends. The worker has its own by now, or never will."""
        while self.given:
            os.close(self.given.pop())

    def close(self) -> None:
        """Close the host's ends."""
        for stream in self._ours:
            stream.close()


class KeptProcess:
    """A worker process below its keeper. Every process that the worker starts has `mark` in its environment.

    `of_template`: it is a template. The keepers that it has forked descend from it, and outlive it.
    """

    def __init__(self, keeper: Child, pipes: Pipes, mark: str, *, of_template: bool = False) -> None:
        self.keeper = keeper
        self.pipes = pipes
        self.pid = 0
        self.exit_code: int | None = None
        self._mark = mark
        self._is_template = of_template
        self._ticks: int | None = None
        self._is_gone = False
        self._ending = trio.Lock()

    @classmethod
    async def start(
        cls,
        place: Place,
        command: Sequence[str],
        variables: dict[str, str],
        *,
        pass_fds: Sequence[int] = (),
        with_stdin: bool = False,
    ) -> Self:
        """Start a worker, or a template if the place is a template's. Its mark is in `variables`.

        Raises `OSError`, even if only the worker's program cannot be run. If this is cancelled, the worker is killed.
        """
        pipes = Pipes(with_stdin=with_stdin)
        try:
            if place.template is None:
                start = functools.partial(_spawn, place, command, variables, pass_fds, pipes.given)
                keeper = await Child.start(start)
            else:
                keeper = await place.template.fork(place, command, variables, pass_fds, pipes.given)
            kept = cls(keeper, pipes, variables[WORKER_VARIABLE], of_template=place.is_of_template)
        except BaseException:
            pipes.close()
            raise
        finally:
            pipes.give()
        try:
            await kept._hear_of_start()
        except BaseException:
            await kept.end_now()  # noqa: ASYNC102 - shielded and bounded in there
            raise
        return kept

    async def end_now(self) -> None:
        """Kill the worker, wait for its end, and close it. Takes two seconds at the most, even if cancelled."""
        with trio.CancelScope(shield=True):
            self.signal(signal.SIGKILL)
            with trio.move_on_after(_LONGEST):
                await self.wait()
        self.close()

    async def _hear_of_start(self) -> None:
        line = await self.keeper.read_line()
        what, _, said = (line or b"error its keeper ended").partition(b" ")
        if what != b"pid":
            self.exit_code = 127
            raise OSError(said.decode("utf-8", "replace"))
        self.pid = int(said)
        with contextlib.suppress(OSError):
            self._ticks = start_ticks(self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and the descendants in its group. SIGKILL ends all descendants."""
        self.keeper.tell(bytes([number]))
        if number is signal.SIGKILL and self.keeper.process.returncode is None:
            with contextlib.suppress(OSError):
                self.keeper.process.send_signal(signal.SIGCONT)  # the keeper may have been stopped

    async def wait(self) -> None:
        """Wait until the worker and all that it has started have ended."""
        async with self._ending:
            if self._is_gone:
                return
            while (line := await self.keeper.read_line()) is not None:
                what, _, said = line.partition(b" ")
                if what == b"exit":
                    self.exit_code = os.waitstatus_to_exitcode(int(said))
            await self.keeper.until_reaped()
            if self.exit_code is None:
                await self._end_without_keeper()
            self._is_gone = True

    async def _end_without_keeper(self) -> None:
        """End what is left of a worker whose keeper was killed by somebody.

        The worker dies with its keeper, but the processes that the worker has started may live on.
        """
        logger.warning("the keeper (pid %d) of worker process %d was killed", self.keeper.pid, self.pid)
        killed = {self.pid: self._ticks}
        with trio.move_on_after(_LONGEST):
            while self._kill_what_is_left(killed) or _are_zombies_of_ours(killed):  # noqa: ASYNC110 - no event
                await trio.sleep(_PASS)
            self.exit_code = -signal.SIGKILL
            return
        logger.error("process %d, or one that it has started, does not end after SIGKILL", self.pid)

    def _kill_what_is_left(self, killed: dict[int, int | None]) -> bool:
        try:
            # A process that is ending has no environment any more, but is not dead yet.
            left = self._marked() | alive(killed)
            left = left if self._is_template else with_descendants(left)
            killed |= {pid: start_ticks(pid) for pid in left - killed.keys()}
        except OSError:
            return True  # no descriptor is free for now: look again
        kill(left)
        return bool(left)

    def _marked(self) -> set[int]:
        marked = pids_of(WORKER_VARIABLE, self._mark)
        # A keeper that a template has just forked does not have the mark of its worker yet.
        return {pid for pid in marked if not is_keeper(pid)} if self._is_template else marked

    def close(self) -> None:
        """Close the pipes, and the socket of the keeper. Call it after the worker has ended."""
        try:
            self.pipes.close()
        finally:
            self.keeper.let_go()


def _are_zombies_of_ours(pids: dict[int, int | None]) -> bool:
    """Reap the processes that are children of this process now. Returns whether some of them have not ended yet.

    If this is the first process of a container, processes whose parents are gone become its children.
    """
    for pid in list(pids):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except OSError:
            ended = pid
        if ended:
            del pids[pid]
    return bool(pids)


def _spawn(
    place: Place,
    command: Sequence[str],
    variables: dict[str, str],
    pass_fds: Sequence[int],
    pipes: Sequence[int],
    theirs: socket.socket,
) -> subprocess.Popen[bytes]:
    *stdin, stdout, stderr = pipes
    descriptors = [*pass_fds, *([] if place.descriptor is None else [place.descriptor])]
    options = [" ".join(map(str, descriptors)), place.folder, *map(_number, (place.descriptor, place.config.umask))]
    options.append(" ".join(map(str, sorted(place.options.cpus or ()))))
    options.append("template" if place.is_of_template else "")
    keeper = [place.python, "-I", "-S", place.keeper, str(theirs.fileno()), str(os.getpid()), *options]
    return subprocess.Popen(
        [*keeper, *command],
        stdin=stdin[0] if stdin else subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=[theirs.fileno(), *descriptors],
        process_group=0,  # no session of its own, which would be scheduled as a rival of the host: sched(7), autogroup
        cwd="/",
        env=place.environment(variables),
    )


def _number(number: int | None) -> str:
    return "" if number is None else str(number)
