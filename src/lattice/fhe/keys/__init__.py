"""The client: key generation, encryption, decryption. The only package that sees secrets.

Small, isolated, and never imported by an evaluator. Randomness comes from the operating system (`sampling`), and no
secret comes out of a seed that leaves the process.
"""
