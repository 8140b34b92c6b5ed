"""Sessions and what they hold: typed variables, programs, metadata."""
