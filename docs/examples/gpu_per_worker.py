"""One GPU, one half of the cores and one model for each worker. No GPU is needed: workers only tell which they see.

It prints:

    numbers: [0, 1]
    crashed: crash
    worker 0: small(7) on GPU 0
    worker 1: large(7) on GPU 1
"""

from __future__ import annotations

import os

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool

WORKERS = 2
MODELS = ["small", "large"]
CORES = sorted(os.sched_getaffinity(0))


def per_worker(number: int) -> snakepit.WorkerOptions:
    """Give each worker a GPU, a half of the cores, and a model."""
    return snakepit.WorkerOptions(
        env={"CUDA_VISIBLE_DEVICES": str(number)},
        cpus=CORES[number % len(CORES) :: WORKERS],
        options={"model": MODELS[number]},
    )


class Models(BaseAdapter):
    """Runs a model on the GPU of its worker."""

    def __init__(self, model: str) -> None:
        self._model = model

    def setup(self) -> None:
        """Load the model here: `torch.load(...).to("cuda")` would use the one GPU that this process sees."""
        self._gpu = os.environ["CUDA_VISIBLE_DEVICES"]

    @tool
    def predict(self, x: int, context: SessionContext) -> str:
        """Tell who computes."""
        return f"worker {context.worker_number}: {self._model}({x}) on GPU {self._gpu}"

    @tool
    def crash(self) -> None:
        """End the process."""
        os.abort()


async def main() -> None:
    """Ask both workers, and again after one of them has died."""
    async with snakepit.open_pool(Models, workers=WORKERS, per_worker=per_worker) as pool:
        print("numbers:", [worker.number for worker in pool.list_workers()])
        try:
            await pool.execute("crash")
        except snakepit.WorkerCrashed as error:
            print("crashed:", error.tool)
        await pool.await_ready()
        answers: set[str] = set()
        while len(answers) < WORKERS:  # calls side by side go to both workers
            async with trio.open_nursery() as nursery:
                for _ in range(WORKERS):
                    nursery.start_soon(ask, pool, answers)
        print(*sorted(answers), sep="\n")


async def ask(pool: snakepit.Pool, answers: set[str]) -> None:
    """Make one call."""
    answers.add(await pool.execute("predict", {"x": 7}))


if __name__ == "__main__":
    trio.run(main)
