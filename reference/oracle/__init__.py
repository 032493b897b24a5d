"""Autodiff's answers to problems, many at once, each with its tolerances."""
