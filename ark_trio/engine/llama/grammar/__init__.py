"""What an answer must look like, as grammars for llama.cpp. Pure."""
