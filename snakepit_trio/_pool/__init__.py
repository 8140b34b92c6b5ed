"""What an application holds: the pool, its sessions and its workers."""
