"""Large buffers that travel beside a message: in shared memory, or in pieces over the link."""
