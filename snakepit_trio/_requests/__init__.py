"""The requests that workers send to the host while they serve calls: for sessions, variables and host tools."""
