"""Why a candidate is wrong: known mistakes, what can be seen, where, and the smallest problem."""
