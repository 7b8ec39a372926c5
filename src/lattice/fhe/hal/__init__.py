"""Hardware abstraction: the backend protocol, default composites, programs, transcripts, and the backends themselves."""
