"""The generated pages of the reference: one module for each, each a pure function of the code that it describes."""
