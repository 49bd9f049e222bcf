"""The commands, one module per group; `broker.cli` puts them together."""
