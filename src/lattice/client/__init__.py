"""The SDK: clients, the OpenAI transport that seals, pairing and the key store. HTTP out and files; never a gateway."""
