"""What a pool is told when it is opened: its settings, policies and limits, its adapter and its launcher."""
