"""Golden vectors: problems whose answers are certified, for code in any language."""
