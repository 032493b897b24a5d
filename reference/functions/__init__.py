"""Any JAX function of any tree of arrays, and a gradient of it by hand."""
