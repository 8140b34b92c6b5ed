"""How the code of a call asks its host: for variables, programs, and host tools."""
