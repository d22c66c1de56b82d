"""What llama.cpp is told."""

from pathlib import Path

import xllamacpp

from ark_trio.config import EngineSettings
from ark_trio.engine.llama.native import _params


def test_a_state_holds_the_whole_window_and_nothing_of_the_past_lies_about(tmp_path: Path):
    params = _params(xllamacpp, EngineSettings(slots=3), tmp_path / "m.gguf", tmp_path, "key")
    assert params.swa_full
    assert params.cache_ram_mib == 0
    assert params.n_ctx == 3 * EngineSettings().context_tokens


def test_only_this_process_can_ask_it(tmp_path: Path):
    params = _params(xllamacpp, EngineSettings(), tmp_path / "m.gguf", tmp_path, "key")
    assert (params.hostnames, params.api_keys) == (["127.0.0.1"], ["key"])
    assert not params.ui
