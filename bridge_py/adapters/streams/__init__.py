"""The streaming tools of the showcase, a module each. None of them is imported before its tool is called."""
