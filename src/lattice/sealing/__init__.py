"""Sealed work: what a sender encrypts to a runtime, what the runtime answers, and how each proves who it is.

Pure: no I/O, no clock. Import the module you need (`lattice.sealing.envelope`, `.frames`, `.receipt`, ...).
The byte layouts, the threat model and the limits are in `spec/sealed-work.md`.
"""
