"""The command lines of `calibrate`, `verify` and `profiles`: options parsed, work called, output
shown."""
