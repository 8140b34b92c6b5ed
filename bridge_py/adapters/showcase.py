"""The adapter of a pool that was opened without one: tools to try things out with, and five streams that do real work.

A module of `streams` is imported only when its tool runs, so that workers start light.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import resource
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool

from .streams.configs import AlertThresholds, Engine, ModelConfig, Operation, TrainingConfig

Record = dict[str, Any]


class Showcase(BaseAdapter):
    """Small tools to try things out with, and streams whose last chunk has `is_final` and the totals."""

    def setup(self) -> None:
        """Note when the worker started."""
        self._started = time.monotonic()
        self._calls = 0

    @tool
    def ping(self, message: str = "pong") -> dict[str, Any]:
        """Answer with the message, the worker's process id and its clock.

        Args:
            message: The message of the answer.

        """
        self._calls += 1
        return {"message": message, "pid": os.getpid(), "time": time.time()}

    @tool
    def echo(self, **values: Any) -> dict[str, Any]:
        """Give back the arguments as they came."""
        self._calls += 1
        return values

    @tool
    def add(self, a: int | float, b: int | float) -> int | float:
        """Add two numbers."""
        self._calls += 1
        return a + b

    @tool
    def process_text(self, text: str, top: int = 3) -> dict[str, Any]:
        """Count the characters, lines, words and sentences of a text, and its most frequent words.

        Args:
            text: The text.
            top: How many of the most frequent words to list.

        """
        self._calls += 1
        words = re.findall(r"[\w']+", text.lower())
        return {
            "characters": len(text),
            "lines": len(text.splitlines()),
            "words": len(words),
            "sentences": len(re.findall(r"[^.!?\s][^.!?]*[.!?]*", text)),
            "most_frequent": collections.Counter(words).most_common(top),
        }

    @tool
    def get_stats(self, context: SessionContext) -> dict[str, Any]:
        """Report about this worker process: calls served, seconds of life and of CPU, peak memory in bytes."""
        self._calls += 1
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "pid": os.getpid(),
            "calls": self._calls,
            "uptime_seconds": time.monotonic() - self._started,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_memory_bytes": usage.ru_maxrss * 1024,
            "session": context.session_id,
        }

    @tool
    def ping_stream(self, count: int = 5, interval: float = 0.0) -> Iterator[dict[str, Any]]:
        """Yield `count` numbered pings.

        Args:
            count: How many.
            interval: Seconds between two of them.

        """
        self._calls += 1
        for number in range(count):
            if number and interval:
                time.sleep(interval)
            yield {"number": number, "time": time.time()}

    @tool
    def batch_inference(self, batch_items: list[Any], model_path: str | None = None) -> Iterator[Record]:
        """Predict what images show, a chunk for each: item, prediction, confidence (percent), truth and in_training.

        Truth is known for digits given by their index, else it is None. An item that cannot be used has `error` in
        place of a prediction, and the other items go on. The last chunk has count, errors, unseen (items with a known
        truth from which the model has not learned) and the accuracy on those.

        Args:
            batch_items: Indices of scikit-learn's digits, arrays of 8 x 8 or 64 numbers from 0 to 16, or paths of PGM
                images (white on black, sides that are multiples of 8).
            model_path: A file that `distributed_training` has written; without one, a model that is trained on
                the first 1000 digits, once in each worker.

        """
        from .streams import libraries

        self._calls += 1
        libraries.need("numpy", "batch_inference")
        from .streams import inference

        yield from inference.infer(model_path, batch_items)

    @tool
    def process_large_dataset(
        self,
        file_path: str,
        chunk_size: int = 10_000,
        operations: list[Operation] = ["clean", "transform", "aggregate"],  # noqa: B006 - shown to callers, never changed
        delimiter: str = ",",
        numeric_columns: list[str] | None = None,
        engine: Engine = "auto",
        encoding: str | None = None,
    ) -> Iterator[Record]:
        """Process a CSV file of any size in constant memory.

        Each block has a chunk: progress_percent (by bytes), processed_rows, estimated_rows and memory_usage_mb. The
        last chunk has total_rows and final_stats, with processed, errors (rows with a cell that should be a number and
        is none, with too many or too few cells, or with a quote that is not closed), missing (rows that lack a number),
        skipped, replaced (characters that could not be decoded), and columns.

        Args:
            file_path: A CSV file whose first row names the columns; it may be compressed by gzip, bz2 or xz.
            chunk_size: Rows in a block.
            operations: clean drops rows with errors and rows that lack numbers; transform brings texts into one form
                (blanks, capitals); aggregate gives count, mean, std, min and max of columns of numbers, and counts
                the values of text columns that have at most 100.
            delimiter: The character between cells.
            numeric_columns: The columns of numbers; without it, columns that look like numbers in the first rows.
            engine: pyarrow, csv (slower, needs nothing), or auto: pyarrow if the worker has it.
            encoding: The file's encoding; without it, UTF-8, or UTF-16 or UTF-32 if the file looks like that.

        """
        from .streams import dataset

        self._calls += 1
        yield from dataset.process(file_path, chunk_size, operations, delimiter, numeric_columns, engine, encoding)

    @tool
    async def tail_and_analyze(
        self,
        context: AsyncSessionContext,
        log_path: str,
        patterns: list[str],
        context_lines: int = 3,
        idle_seconds: float | None = None,
        max_matches: int | None = None,
        from_start: bool = False,
        poll_interval: float = 0.1,
    ) -> AsyncGenerator[Record, None]:
        """Follow a growing log file, even through rotation and truncation, and report lines that match.

        Each such line has a chunk: severity, timestamp, log_line, pattern_matched, context (lines before it) and
        line_number (among the lines read). The last chunk has lines, matches, matches_by_pattern, rotations,
        truncations and reason. Without idle_seconds and max_matches it goes on until it is cancelled.

        Args:
            context: The call's context.
            log_path: The file; it may be created later.
            patterns: Regular expressions; the first one that is found in a line counts.
            context_lines: How many lines before a match to show.
            idle_seconds: End when there was no new line for that many seconds.
            max_matches: End after that many matches.
            from_start: Whether to read the lines that are in the file already.
            poll_interval: Seconds between looks at the file.

        """
        from .streams import tail

        self._calls += 1
        follow = tail.tail(
            log_path, patterns, context_lines, idle_seconds, max_matches, from_start, poll_interval, context.logger
        )
        async with contextlib.aclosing(follow) as chunks:
            async for chunk in chunks:
                yield chunk  # noqa: ASYNC119 - the executor closes this generator

    @tool
    def distributed_training(
        self,
        model_config: ModelConfig = ModelConfig(),  # noqa: B008 - immutable
        training_config: TrainingConfig = TrainingConfig(),  # noqa: B008 - immutable
        dataset_path: str | None = None,
        output_path: str | None = None,
        shard: int = 0,
        shards: int = 1,
        initial_weights: list[Any] | None = None,
        return_weights: bool = False,
    ) -> Iterator[Record]:
        """Train a small network by epochs, with early stop; in this worker, on all rows or on one shard of them.

        Each epoch has a chunk: epoch, train_loss, val_loss, train_acc, val_acc and learning_rate. The last chunk has
        best_val_accuracy, best_val_loss and best_epoch, epochs_run, stopped_early, rows (learned from), and
        final_model_path and weights if asked for; both are from the best epoch. The caller makes the training
        distributed: it trains a shard in each of several workers, averages their weights, and gives the averages to the
        next round.

        Args:
            model_config: architecture (softmax or mlp), layers, hidden_size, seed.
            training_config: epochs, batch_size, learning_rate, decay, momentum, patience, validation_split, seed.
            dataset_path: `.npz` with arrays X and y, or CSV whose last column is the label; without it,
                scikit-learn's digits.
            output_path: Where to write the model, for `batch_inference`.
            shard: Which part to learn from, from 0; the rows held back are the same for all parts.
            shards: How many parts there are.
            initial_weights: Weights to start from, in the form in which they are returned.
            return_weights: Whether the last chunk has the weights, a list of arrays.

        """
        from .streams import libraries

        self._calls += 1
        libraries.need("numpy", "distributed_training")
        from .streams import training

        yield from training.train(
            model_config, training_config, dataset_path, output_path, shard, shards, initial_weights, return_weights
        )

    @tool
    def realtime_stock_analysis(
        self,
        context: SessionContext,
        prices: list[Any] | str | None = None,
        feed: str | None = None,
        symbols: list[str] | None = None,
        indicators: list[str] = ["RSI", "MACD", "SMA_20", "SMA_50"],  # noqa: B006 - shown to callers, never changed
        alert_thresholds: AlertThresholds = AlertThresholds(),  # noqa: B008 - immutable
    ) -> Iterator[Record]:
        """Analyze ticks (symbol, price, and volume if known) as they come.

        Each tick has a chunk: symbol, price, volume, the indicators (rsi, macd, macd_signal, macd_histogram, sma_20 and
        so on; None while there are too few prices), volume_ratio, alerts, and trading_signal: BUY when the first RSI is
        at rsi_oversold or below, SELL at rsi_overbought or above, else HOLD. The last chunk has ticks, and symbols with
        their ticks, last_price and signals. This is no advice.

        Args:
            context: The call's context.
            prices: A list of ticks, or the path of a CSV file with these columns.
            feed: In place of prices, the name of a host tool that streams ticks; it is called with symbols=.
            symbols: Which symbols to analyze; without it, all.
            indicators: RSI (14 moves), RSI_n, MACD (12, 26, 9), SMA_n, EMA_n.
            alert_thresholds: rsi_oversold, rsi_overbought, volume_spike (a multiple of the mean of the last 20).

        """
        from .streams import stocks

        self._calls += 1
        ticks = stocks.choose_ticks(prices, feed, lambda name: context.stream_host_tool(name, symbols=symbols))
        yield from stocks.analyze(ticks, symbols, indicators, alert_thresholds)
