"""Stand-ins for what no test machine has: GPUs, the private engine, its licence and models."""

from collections.abc import Mapping
from pathlib import Path

RECORDER = """\
#!/usr/bin/python3
import json, os, resource, signal, socket, sys
limits = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in ("MEMLOCK", "NOFILE", "CORE")}
record = {
    "argv": sys.argv,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "limits": limits,
    "oom_score_adjust": int(open("/proc/self/oom_score_adj").read()),
    "license": open("license.lic").read(),
}
folder = os.environ.get("RECORD_IN") or os.environ["RUNTIME_DIRECTORY"]
with open(os.path.join(folder, "record.json"), "w") as file:
    json.dump(record, file)
print("loading the model", file=sys.stderr, flush=True)
mode = open("mode").read().strip() if os.path.exists("mode") else "serve"
if mode == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if mode == "exit":
    sys.exit(7)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "record":
    sys.exit(0)
port = int(sys.argv[sys.argv.index("--port") + 1])
if mode == "deaf":
    signal.pause()
with socket.create_server(("0.0.0.0", port)) as listener:
    while True:
        listener.accept()[0].close()
"""
"""Records how it was started, and then does what the file `mode` beside it says."""

STAND_IN = """\
#!/bin/sh
exec /opt/ark/bin/ark-trio "$@"
"""
"""Our CPU engine in the private one's place: it knows the command line and the variables."""

NVIDIA_SMI = """\
#!/bin/sh
[ "$1" = -L ] || exit 1
for number in 0 1 2 3 4 5 6 7; do
  echo "GPU $number: NVIDIA H20 (UUID: GPU-00000000-0000-0000-0000-00000000000$number)"
done
"""

MAIN = "/data/models/DeepSeek-R1-ENC-xLLM"
DRAFT = "/data/models/DeepSeek-R1-DRAFT-ENC-xLLM"
LICENSE = "a licence\n"


def files(binary: str = RECORDER) -> Mapping[str, tuple[str, int]]:
    """What a GPU host has: contents and modes by path."""
    return {
        "/usr/bin/nvidia-smi": (NVIDIA_SMI, 0o755),
        "/app/xllm/private_xllm.bin": (binary, 0o755),
        "/app/xllm/prefill_enc.env": ("", 0o644),
        "/app/xllm/decode_enc.env": ("", 0o644),
        f"{MAIN}/saved_model/gemm_config": ("", 0o644),
        f"{DRAFT}/model": ("", 0o644),
    }


def lay_out(root: Path, binary: str = RECORDER) -> None:
    """Write those files below a folder."""
    for path, (text, mode) in files(binary).items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
