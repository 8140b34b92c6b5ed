"""What carries calls to a worker, one module for each protocol that workers speak."""
