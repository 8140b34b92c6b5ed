"""What workers ask of the host while they serve calls: sessions, variables, and host tools."""
