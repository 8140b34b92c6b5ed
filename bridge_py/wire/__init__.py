"""The code that host and worker share: frames, the conversation, values and errors."""
