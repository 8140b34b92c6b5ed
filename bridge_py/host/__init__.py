"""What the code of a call may ask of its host: variables, programs, and host tools."""
