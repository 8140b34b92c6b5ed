"""A template: a process that imports the modules of a pool's workers once, and forks the workers and their keepers."""
