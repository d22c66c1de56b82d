"""What the settings say of gRPC connections to engines."""

from ark_trio.config import Settings
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.tls import call_context


def channel_options(settings: Settings) -> ChannelOptions:
    """Return it.

    Raises:
        ConfigError: certificates are not what they should be.
    """
    return ChannelOptions(
        connect_s=settings.limits.connect_s,
        max_message_bytes=settings.limits.max_message_bytes,
        stream_window_bytes=settings.grpc.stream_window_bytes,
        connection_window_bytes=settings.grpc.connection_window_bytes,
        ping_s=settings.grpc.ping_s,
        ping_timeout_s=settings.grpc.ping_timeout_s,
        tls=call_context(settings.grpc),
        server_name=settings.grpc.server_name,
    )
