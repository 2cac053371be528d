"""Tables of key names, one file per system: what the official code calls a tensor, and what we call it."""
