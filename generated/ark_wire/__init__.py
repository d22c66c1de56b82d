"""The ARK contract in Python, generated from proto/ark.proto by `make proto`.

`ark_wire.inference` holds betterproto's typed messages, stub and service base; `ark_wire.ark_pb2` the same
messages as google.protobuf classes, which parse in C.
"""
