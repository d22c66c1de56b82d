"""An ARK decoder on gRPC's own implementation, as a process: `python grpcio_decoder.py PORT [health]`.

It says the words of the last message; `hang`, `fail:STATUS` and `garbage` as a message do what they say. How many calls run and
how many were cancelled stands in GetStatus. With `health` it has no Control but gRPC's health service, which says NOT_SERVING
from one SIGUSR1 to the next, and its answers begin with its port.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from ark_wire import ark_pb2

counts = {"busy": 0, "cancelled": 0, "finished": 0}
lock = threading.Lock()


def count(**changes: int) -> None:
    with lock:
        for key, change in changes.items():
            counts[key] += change


def value(text: str) -> ark_pb2.Value:
    return ark_pb2.Value(bytes_=text.encode())


def message(text: str = "", finish: str = "") -> ark_pb2.InferenceResponse:
    outputs = {
        "choice.index": ark_pb2.Value(int64_=0),
        "choice.message.role": value("assistant"),
        "choice.message.content": value(text),
        "choice.finish_reason": value(finish),
    }
    return ark_pb2.InferenceResponse(req_id="another", model_name="m", outputs=outputs)


def stream(request: ark_pb2.InferenceRequest, context: Any) -> Iterator[ark_pb2.InferenceResponse]:
    ended = threading.Event()
    context.add_callback(ended.set)
    text = request.inputs["messages.content"].bytes_list.values[-1].decode()
    count(busy=1)
    # What a call is that is given up during a `yield`, too: gRPC does not come back to it then.
    outcome = {"cancelled": 1}
    try:
        if text.startswith("fail:"):
            outcome = {}
            context.abort(getattr(grpc.StatusCode, text.removeprefix("fail:")), "no, at 10.1.2.3")
        for word in text.split():
            yield message(word + " ")
            if word == "hang":
                ended.wait()
                return
        yield message(finish="stop")
        outcome = {"finished": 1}
    finally:
        count(busy=-1, **outcome)


def control(request: ark_pb2.ControlRequest, context: Any) -> ark_pb2.ControlResponse:
    if request.control_type != ark_pb2.GetStatus:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
    outputs = {key: ark_pb2.Value(int64_=number) for key, number in counts.items()}
    outputs["models"] = ark_pb2.Value(string_list=ark_pb2.StringList(values=["m"]))
    return ark_pb2.ControlResponse(req_id=request.req_id, outputs=outputs)


class Health:
    """gRPC's health service, of which one word is said for all."""

    def __init__(self) -> None:
        self.serving = True

    def toggle(self, *_: object) -> None:
        self.serving = not self.serving

    def check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:
        status = HealthCheckResponse.SERVING if self.serving else HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse(status=status)


def main(port: str, kind: str = "control") -> None:
    def stream_from_here(
        request: ark_pb2.InferenceRequest, context: Any
    ) -> Iterator[ark_pb2.InferenceResponse]:
        if kind == "health":
            yield message(f"{port}: ")
        yield from stream(request, context)

    server = grpc.server(ThreadPoolExecutor(64))
    handlers = {
        "StreamingCall": grpc.unary_stream_rpc_method_handler(
            stream_from_here,
            ark_pb2.InferenceRequest.FromString,
            ark_pb2.InferenceResponse.SerializeToString,
        )
    }
    services = {"inference.Inference": handlers}
    if kind == "health":
        health = Health()
        signal.signal(signal.SIGUSR1, health.toggle)
        services["grpc.health.v1.Health"] = {
            "Check": grpc.unary_unary_rpc_method_handler(
                health.check,
                HealthCheckRequest.FromString,
                HealthCheckResponse.SerializeToString,
            )
        }
    else:
        handlers["Control"] = grpc.unary_unary_rpc_method_handler(
            control, ark_pb2.ControlRequest.FromString, ark_pb2.ControlResponse.SerializeToString
        )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, methods)
            for name, methods in services.items()
        )
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    while server.wait_for_termination(0.1):  # in between signals are heeded
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
