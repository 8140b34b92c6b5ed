"""The way of a call: it is checked, queued, assigned to a worker, run or streamed, and ended."""
