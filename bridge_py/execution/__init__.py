"""How tools run and are stopped, and how their process ends."""
