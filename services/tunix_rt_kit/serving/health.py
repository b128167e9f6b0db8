"""Asks a server for its health: ``python -m tunix_rt_kit.serving.health [ADDRESS]`` exits with 0 if it
serves."""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tunix_rt.wire import open_channel


def check(address: str, timeout_s: float = 5.0) -> str:
    """The state that the server at ``address`` reports, such as "SERVING"; "" without an answer."""
    with open_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=True
            )
        except grpc.RpcError:
            return ""
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def main() -> int:
    service = os.environ.get("TUNIX_RT_SERVICE", "").upper().replace("-", "_")
    listen = os.environ.get(f"TUNIX_RT_{service}_LISTEN", "127.0.0.1:50050")
    address = sys.argv[1] if len(sys.argv) > 1 else listen.replace("0.0.0.0:", "127.0.0.1:")
    state = check(address)
    print(f"{address}: {state or 'no answer'}")
    return 0 if state == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
