"""Worker processes as the operating system sees them: who is ours, what ends them, and what this machine can hold."""
