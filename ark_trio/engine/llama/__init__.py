"""The CPU engine: llama.cpp in process, its KV cache handed from a prefiller to a decoder."""
