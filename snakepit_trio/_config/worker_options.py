"""What differs from worker to worker: environment variables, options of the adapter, and CPUs."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import attrs

from bridge_py.wire.amounts import plain, thousandths
from bridge_py.wire.environment import NUMBER_VARIABLE, PATH_VARIABLE, READY_VARIABLE
from bridge_py.wire.errors import UsageError
from snakepit_trio._processes.guardian import RUN_VARIABLE, WORKER_VARIABLE
from snakepit_trio._util.validation import environment, is_whole, refuse

from .adapters import Adapter, GrpcPython
from .limits import THREAD_VARIABLES

#: Environment variables that the pool itself sets for each worker.
RESERVED: Final = frozenset({NUMBER_VARIABLE, PATH_VARIABLE, READY_VARIABLE, RUN_VARIABLE, WORKER_VARIABLE})


def to_env(env: object) -> Any:
    """A copy of environment variables: workers that start later get the values of the time when the pool opened."""
    return dict(env) if isinstance(env, Mapping) else env


def to_options(options: object) -> Any:
    """A copy of an adapter's options, as JSON holds them. Raises `UsageError` for other values."""
    if not isinstance(options, Mapping):
        return options
    return {option: _plain(option, value) for option, value in options.items()}


def _plain(option: object, value: object) -> object:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"options: {option!r} is no plain JSON value: {error}") from None


def check_options(adapter: Adapter | None, options: object) -> None:
    """Raise `UsageError` for anything but options by name, and if the adapter takes none; None for any adapter."""
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise UsageError(f"options {options!r}: give a dict by the names of the adapter's parameters")
    if options and adapter is not None and not isinstance(adapter, GrpcPython):
        raise UsageError(f"options are for adapters that are Python classes; {adapter!r} takes none: leave them out")


def _check_names(_options: object, _field: object, options: object) -> None:
    check_options(None, options)


def _check_reserved(_options: object, _field: object, env: Mapping[str, str] | None) -> None:
    if taken := sorted(RESERVED.intersection(env or ())):
        raise UsageError(f"env: the pool sets {', '.join(taken)} itself: leave it out, or take another name")


def _to_cpus(cpus: object) -> Any:
    if isinstance(cpus, Collection) and not isinstance(cpus, (str, bytes)) and all(map(is_whole, cpus)):
        return frozenset(cpus)
    return cpus


def _check_cpus(_options: object, _field: object, cpus: Any) -> None:
    if cpus is None:
        return
    if not isinstance(cpus, frozenset) or not cpus:
        raise refuse("cpus", cpus, "give a set of CPU numbers, such as {0, 1}, or None for all")
    if not hasattr(os, "sched_setaffinity"):
        raise refuse("cpus", sorted(cpus), "this system cannot bind a process to CPUs: leave cpus out")
    allowed = os.sched_getaffinity(0)
    if missing := sorted(cpus - allowed):
        raise refuse(
            "cpus",
            sorted(cpus),
            f"this process may not use {_listed(missing)}: choose from os.sched_getaffinity(0), {_listed(allowed)}",
        )


def _listed(cpus: Collection[int]) -> str:
    *shown, _ = (*map(str, sorted(cpus)[:20]), "")
    return f"CPU {', '.join(shown)}" + (", ..." if len(cpus) > len(shown) else "")


def to_resources(resources: object) -> dict[str, float]:
    """Amounts of resources by name, as numbers. Raises `UsageError` for anything else."""
    try:
        return plain(thousandths(resources))
    except ValueError as error:
        raise UsageError(f"resources={resources!r:.200}: {error}") from None


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """What differs for one worker of a pool: the function that `open_pool(per_worker=...)` takes returns it.

    Each field adds to the pool's own setting, for this worker alone. Raises `UsageError` for invalid values.
    """

    #: Environment variables, on top of the pool's `env`. They are set before the process starts, as GPU libraries need
    #: it: `{"CUDA_VISIBLE_DEVICES": "3"}`. The variables that the pool itself sets for each worker are refused. With a
    #: template, so are variables that are read only when a program starts or a library is loaded.
    env: Mapping[str, str] | None = attrs.field(
        default=None, converter=to_env, validator=[environment, _check_reserved]
    )
    #: Keyword arguments for the adapter class, on top of the pool's `options`: plain JSON values by name.
    options: Mapping[str, Any] = attrs.field(factory=dict, converter=to_options, validator=_check_names)
    #: The numbers of the CPUs that the process may use, and all that it starts; None for the host's own. They are set
    #: before its program runs. BLAS and OpenMP get no more threads than that.
    cpus: Collection[int] | None = attrs.field(default=None, converter=_to_cpus, validator=_check_cpus)
    #: Amounts of resources that the worker offers to its calls, such as `{"gpu": 1}`, in place of the pool's own ones
    #: of the same names. An amount is a number from 0 on, with up to three decimals.
    resources: Mapping[str, float] = attrs.field(factory=dict, converter=to_resources)


_SAME: Final = WorkerOptions()


def _check_forked(env: Mapping[str, str] | None) -> None:
    for name in env or ():
        if name in THREAD_VARIABLES or name.startswith(("PYTHON", "LD_")):
            raise UsageError(
                f"env: {name} is read when a program starts or a library is loaded, which a template does once for all "
                "workers: set it in the pool's env, or leave template= out"
            )


class OptionsByNumber:
    """The options of each worker, by its number. `per_worker` is asked once for each number, and never again."""

    def __init__(
        self,
        per_worker: Callable[[int], WorkerOptions] | None,
        adapter: Adapter,
        resources: Mapping[str, float],
        *,
        forks: bool = False,
    ) -> None:
        self._per_worker = per_worker
        self._adapter = adapter
        self._resources = thousandths(resources)
        self._forks = forks  # workers are forked from a template
        self._known: dict[int, WorkerOptions] = {}

    def prepare(self, workers: int) -> None:
        """Ask for the options of the numbers below `workers`. Raises `UsageError`, which names the number."""
        if self._per_worker is not None:
            for number in range(workers):
                self.of(number)

    def of(self, number: int) -> WorkerOptions:
        """The options of a worker. Raises `UsageError` if they are invalid, and were never asked for before."""
        if self._per_worker is None:
            return _SAME
        if number not in self._known:
            self._known[number] = self._ask(self._per_worker, number)
        return self._known[number]

    def resources_of(self, number: int) -> dict[str, int]:
        """What a worker offers, in thousandths by name. Raises `UsageError` as `of` does."""
        own = self.of(number).resources
        return {**self._resources, **thousandths(own)} if own else self._resources

    def _ask(self, per_worker: Callable[[int], WorkerOptions], number: int) -> WorkerOptions:
        try:
            found = per_worker(number)
        except Exception as error:
            what = ":" if isinstance(error, UsageError) else f" raised {type(error).__name__}:"
            raise UsageError(f"per_worker({number}){what} {error}") from error
        if inspect.iscoroutine(found):
            found.close()
        if not isinstance(found, WorkerOptions):
            raise UsageError(f"per_worker({number}) returned {found!r:.100}: return a snakepit_trio.WorkerOptions")
        try:
            check_options(self._adapter, found.options)
            _check_forked(found.env if self._forks else None)
        except UsageError as error:
            raise UsageError(f"per_worker({number}): {error}") from None
        return found
