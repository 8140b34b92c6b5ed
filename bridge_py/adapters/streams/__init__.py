"""The streaming tools of the showcase, one module each. A module is imported only when its tool is called."""
