"""gRPC's own implementation calling an ARK server; run as a process of its own, since it forks threads and locks.

`python -m tests.support.grpcio_client PORT MODE TEXT [MAX_TOKENS]` prints what it saw as JSON.
"""

import contextlib
import json
import sys
from typing import Any

import grpc

from ark_wire import ark_pb2

PREFIX = "/inference.Inference/"


def main(port: str, mode: str, text: str = "", max_tokens: str = "16") -> dict[str, Any]:
    request = ark_pb2.InferenceRequest(req_id="grpcio")
    request.inputs["messages.role"].bytes_list.values.append(b"user")
    request.inputs["messages.content"].bytes_list.values.append(text.encode())
    request.inputs["max_new_tokens"].int64_ = int(max_tokens)
    request.inputs["temperature"].float_ = 0.0
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        modes = {"stream": stream, "cancel": cancel, "unary": unary, "status": status}
        return modes[mode](channel, request)


def stream(channel: grpc.Channel, request: ark_pb2.InferenceRequest) -> dict[str, Any]:
    call = _open(channel)(request, timeout=60)
    contents = []
    with contextlib.suppress(grpc.RpcError):
        for message in call:
            contents.append(_content(message))  # noqa: PERF401 (what came before a failure counts)
    return {
        "contents": contents,
        "status": call.code().name,
        "details": call.details(),
        "trailers": dict(call.trailing_metadata()),
    }


def cancel(channel: grpc.Channel, request: ark_pb2.InferenceRequest) -> dict[str, Any]:
    call = _open(channel)(request, timeout=60)
    first = _content(next(call))
    call.cancel()
    return {"first": first, "status": call.code().name}


def unary(channel: grpc.Channel, request: ark_pb2.InferenceRequest) -> dict[str, Any]:
    request.method = "tokenize"
    request.inputs["text"].string_ = "one two"
    call = channel.unary_unary(
        PREFIX + "Call",
        request_serializer=ark_pb2.InferenceRequest.SerializeToString,
        response_deserializer=ark_pb2.InferenceResponse.FromString,
    )
    request.method = "classification"
    try:
        call(request, timeout=10)
        unknown = "OK"
    except grpc.RpcError as error:
        unknown = error.code().name
    request.method = "tokenize"
    return {
        "count": call(request, timeout=10).outputs["count"].int64_,
        "unknown": unknown,
        **status(channel, request),
    }


def status(channel: grpc.Channel, _: ark_pb2.InferenceRequest) -> dict[str, Any]:
    control = channel.unary_unary(
        PREFIX + "Control",
        request_serializer=ark_pb2.ControlRequest.SerializeToString,
        response_deserializer=ark_pb2.ControlResponse.FromString,
    )
    outputs = control(ark_pb2.ControlRequest(control_type=ark_pb2.GetStatus), timeout=10).outputs
    return {
        "models": list(outputs["models"].string_list.values),
        "cancelled": outputs["cancelled"].int64_,
        "busy": outputs["busy"].int64_,
    }


def _open(channel: grpc.Channel) -> Any:
    return channel.unary_stream(
        PREFIX + "StreamingCall",
        request_serializer=ark_pb2.InferenceRequest.SerializeToString,
        response_deserializer=ark_pb2.InferenceResponse.FromString,
    )


def _content(message: ark_pb2.InferenceResponse) -> str:
    return message.outputs["choice.message.content"].bytes_.decode(errors="replace")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))
