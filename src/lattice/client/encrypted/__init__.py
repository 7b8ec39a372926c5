"""Encrypted inference as seen from an end user and from a provider.

`QueryClient` holds an end user's access token and secret key: it makes keys, encrypts, asks and decrypts. What a
provider does (models, tokens, workers) is `provider`, which `ManagementClient` has too. numpy and `lattice.fhe` are
loaded when a number is first touched, so that importing the SDK stays cheap.
"""
