"""gRPC in Trio's flavour, and the one place where asyncio is spoken.

trio_asyncio must be imported before grpclib: it replaces `asyncio.current_task`, which grpclib binds when it is imported.
"""

import trio_asyncio as trio_asyncio
