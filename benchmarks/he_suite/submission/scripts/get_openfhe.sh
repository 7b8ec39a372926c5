#!/usr/bin/env bash
# The harness calls this before it builds. This submission uses no OpenFHE.
exit 0
