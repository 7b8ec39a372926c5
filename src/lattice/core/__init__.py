"""Pure types that every layer shares: ids, money, time, errors and wire messages. No I/O, no clock, no files."""
