"""A worker: one process that evaluates one encrypted model for whoever its gateway sends.

`link` makes the HTTP calls, `blobs` keeps files by hash, `memory` keeps what was decoded, `evaluation` computes and
signs, `clock` ends the process when its paid time is over, and `service` is the loop that holds them together.
"""
