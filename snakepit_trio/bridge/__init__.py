"""What workers may ask of the host."""
