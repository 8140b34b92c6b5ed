"""A Ray cluster of several nodes on this machine, in a process of its own: Ray's threads and handlers stay there.

It obeys lines of JSON on stdin, and answers each by a line of JSON on stdout. At the end of stdin it ends the cluster.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_MEMORY = 80 * 2**20  # bytes of each node's object store: Ray's least is 75 MiB


class Nodes:
    """A cluster: a head that runs no workers, and nodes that do."""

    def __init__(self, folder: str, nodes: int, cpus: int) -> None:
        from ray.cluster_utils import Cluster

        self._cpus = cpus
        head = {"num_cpus": 0, "object_store_memory": _MEMORY, "include_dashboard": False, "temp_dir": folder}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: dict[str, Any] = {}
        for _ in range(nodes):
            self.add()
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        """Where programs join it."""
        return str(self._cluster.address)

    def add(self) -> str:
        """Add a node, and return its id."""
        node = self._cluster.add_node(num_cpus=self._cpus, object_store_memory=_MEMORY, wait=False)
        self._cluster.wait_for_nodes()
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def kill(self, node_id: str) -> None:
        """Kill a node, by the beginning of its id."""
        found = next(each for each in self._nodes if each.startswith(node_id))
        self._cluster.remove_node(self._nodes.pop(found), allow_graceful=False)

    def end(self) -> None:
        """End the cluster."""
        self._cluster.shutdown()


def main(folder: str, nodes: str, cpus: str) -> None:
    """Obey until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    cluster = Nodes(folder, int(nodes), int(cpus))
    print(json.dumps(cluster.address), file=answers, flush=True)
    try:
        for line in sys.stdin:
            name, *args = json.loads(line)
            print(json.dumps(getattr(cluster, name)(*args)), file=answers, flush=True)
    finally:
        cluster.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
