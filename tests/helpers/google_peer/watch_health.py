"""Prints a server's health each time that it changes, and in the end the status of the stream. Arguments: address."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

with grpc.insecure_channel(sys.argv[1]) as channel:
    watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=120)
    try:
        for response in watching:
            print(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status), flush=True)
    except grpc.RpcError as error:
        print(error.code().name, flush=True)
