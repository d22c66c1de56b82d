"""Pure translation: OpenAI JSON, domain values, ARK messages, SSE. No I/O, clock, randomness or tasks."""
