"""Calling candidates, and judging what they return."""
