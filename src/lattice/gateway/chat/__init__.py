"""The OpenAI-compatible inference routes, in both sealing modes, over one admission and settlement service."""
