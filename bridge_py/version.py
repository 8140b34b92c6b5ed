"""The version of both packages: the builds read it here, and so does the code."""

VERSION = "0.1.0"
