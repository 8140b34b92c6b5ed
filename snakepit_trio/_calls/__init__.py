"""A call on its way: checked, run, put into a queue, given to a worker, streamed, and over."""
