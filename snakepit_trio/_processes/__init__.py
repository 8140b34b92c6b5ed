"""Worker processes as the operating system sees them: which are ours, what ends them, how many a machine can hold."""
